"""The core: `import backbone` and the work on networks and weights need torch, torchvision, numpy and safetensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backbone.common.commands import EXTRAS

# Hides every other package of the project, as if it were not installed, and works on a network.
SCRIPT = """
import sys
from importlib.machinery import PathFinder

hidden = {*sys.argv[2:], "detectron2", "scipy", "iopath", "timm", "transformers"}


class Finder:
    invalidate_caches = PathFinder.invalidate_caches

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in hidden else PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
folder = sys.argv[1]
import torch
import backbone

network = backbone.create("resnet18", num_classes=10)
for file, layout in (("a.safetensors", "torchvision"), ("a.pth", "timm"), ("a.pkl", "detectron2")):
    backbone.save_weights(network, f"{folder}/{file}", layout=layout)
    backbone.load_weights(backbone.create("resnet18", num_classes=10), f"{folder}/{file}", new_classifier=True)
backbone.recompute_bn(network, [torch.rand(2, 3, 32, 32)], 2)
backbone.fold(network)(torch.zeros(1, 3, 32, 32))
backbone.export(network, f"{folder}/network.safetensors")
try:
    backbone.export(network, f"{folder}/network.onnx", input_size=(64, 64))
except backbone.ExportError as error:
    print(error)
print(sorted(hidden & {name.split(".")[0] for name in sys.modules}))
"""


def test_networks_and_weights_need_no_extra(tmp_path):
    hidden = [module for modules in EXTRAS.values() for module in modules]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *hidden],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    missing, imported = done.stdout.splitlines()
    assert "pip install 'resnet-detection[export]'" in missing
    assert imported == "[]"

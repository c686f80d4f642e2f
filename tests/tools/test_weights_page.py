"""docs/weights.md: each command of its tables converts, with small files of the projects in place of the names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from caffe_files import resnet, write
from other_projects import from_detectron2, from_timm, from_torchvision, from_transformers
from randomize import randomize

import backbone

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
COMMANDS = re.findall(r"`tools/(convert_weights\.py) (\S+) (\S+) --to (\w+)`", PAGE.read_text(encoding="utf-8"))
PEERS = {
    "torchvision:": from_torchvision("resnet18"),
    "timm:": from_timm("resnet18", "resnet18"),
    "hf:": from_transformers("resnet18"),
    "detectron2:": from_detectron2("resnet18"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Weights of each project by the beginning of their name on the page."""
    folder = tmp_path_factory.mktemp("page")
    found = {}
    for start, peer in PEERS.items():
        found[start] = folder / f"{peer.layout}.pth"
        torch.save(randomize(peer.build()).state_dict(), found[start])
    found["openmmlab:"] = folder / "mmdet.pth"
    backbone.save_weights(backbone.create("resnet18"), found["openmmlab:"], layout="mmdet")
    found["ResNet-50-model"] = write(folder / "r50.caffemodel", resnet((3, 4, 6, 3), numbered=False, first_bias=True))
    return found


def test_every_way_is_on_the_page():
    assert {to for *_, to in COMMANDS} == set(backbone.weights.WRITABLE)
    assert len(COMMANDS) == 13


def test_every_command_converts(tool, files, shared_data, tmp_path):
    published = shared_data / "cifar_resnet_weights" / "resnet20-12fca82f.th"
    for command, source, target, layout in COMMANDS:
        start = next((start for start in files if source.startswith(start)), None)
        given = published if source == published.name else files.get(start, tmp_path / source)
        done = tool(command, given, target, "--to", layout)
        done.fine(f"{target}: {layout} layout", "read back and found equal")

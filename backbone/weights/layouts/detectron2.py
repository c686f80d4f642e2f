"""detectron2's names (detectron2/modeling/backbone/resnet.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from ...common.preprocessing import IMAGENET
from ..weight_metadata import WeightMetadata
from .base import COUNTER, Layout, Rule, block, refuse, renamed, structure

READ: list[Rule] = [
    (r"res(\d)\.(\d+)\.conv(\d)\.norm\.", lambda m: f"{block(m, -1)}bn{m[3]}."),
    (r"res(\d)\.(\d+)\.shortcut\.norm\.", lambda m: f"{block(m, -1)}downsample.1."),
    (r"res(\d)\.(\d+)\.shortcut\.", lambda m: f"{block(m, -1)}downsample.0."),
    (r"res(\d)\.(\d+)\.", lambda m: block(m, -1)),
    (r"stem\.conv1\.norm\.", "bn1."),
    (r"stem\.conv1\.", "conv1."),
    # tools/convert-torchvision-to-d2.py puts `stem.` before every name that is of no stage.
    (r"(stem\.fc|linear)\.", "fc."),
]
# DeepLab's stem of three convolutions (projects/DeepLab/deeplab/resnet.py).
DEEP_STEM: list[Rule] = [
    (r"stem\.conv3\.norm\.", "bn1."),
    (r"stem\.conv([12])\.norm\.", lambda m: f"conv1.{3 * int(m[1]) - 2}."),
    (r"stem\.conv([123])\.", lambda m: f"conv1.{3 * int(m[1]) - 3}."),
]
WRITE: list[Rule] = [
    (r"layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"{_stage(m)}conv{m[3]}.norm."),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"{_stage(m)}shortcut."),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"{_stage(m)}shortcut.norm."),
    (r"layer(\d)\.(\d+)\.", lambda m: _stage(m)),
    (r"bn1\.", "stem.conv1.norm."),
    (r"conv1\.", "stem.conv1."),
    (r"fc\.", "linear."),
]


def _stage(match) -> str:
    return f"res{int(match[1]) + 1}.{match[2]}."


class Detectron2(Layout):
    """A ResNet of detectron2. Its own checkpoints do not say where the stride stands, nor the channel order; files of
    tools/convert-torchvision-to-d2.py are known by their author."""

    name = "detectron2"
    container = "model"
    anchors = ("res2.0.conv1.weight",)
    # Its frozen BN refuses them, its BN does without.
    counters = False

    def recognises(self, names: Collection[str]) -> bool:
        return "stem.conv1.weight" in names and "res2.0.conv1.weight" in names

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        return renamed(tensors, [*DEEP_STEM, *READ] if "stem.conv2.weight" in tensors else READ)

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        if facts.get("author") == "torchvision":
            return WeightMetadata(
                preprocessing=IMAGENET.converted(value_range=255), stride_in_1x1=False, ceil_pool=False
            )
        return WeightMetadata()

    def check(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        has = structure(network, state)
        unknown = ("vgg", "preact", "cifar", "plain", "all_projections", "deep", "average_down")
        refuse(self.name, network, has, *unknown)

    def from_ours(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        return renamed({name: value for name, value in state.items() if not name.endswith(COUNTER)}, WRITE)

"""Numbered names: torchvision's network as a Sequential of its children, and others that take its parts so."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from ...common.preprocessing import USUAL
from ..weight_metadata import WeightMetadata
from .base import Layout, Rule, renamed

# The children of torchvision's ResNet: conv1, bn1, relu, maxpool, layer1 to layer4, avgpool, fc.
CHILDREN: list[Rule] = [
    (r"0\.(?=\w+$)", "conv1."),
    (r"1\.(?=\w+$)", "bn1."),
    (r"([4-7])\.(\d+)\.", lambda m: f"layer{int(m[1]) - 3}.{m[2]}."),
    (r"9\.(?=\w+$)", "fc."),
]
# The stem as a Sequential `layer0`, usual in few-shot segmentation: of one convolution, or the deep one of three.
STEM: list[Rule] = [(r"layer0\.0\.", "conv1."), (r"layer0\.1\.", "bn1.")]
DEEP_STEM: list[Rule] = [(r"layer0\.7\.", "bn1."), (r"layer0\.(\d)\.", r"conv1.\1.")]


class Sequential(Layout):
    """`nn.Sequential(*resnet.children())`, as fastai and many others cut a network, or with the stem as `layer0`."""

    name = "sequential"
    writable = False
    anchors = ("4.0.conv1.weight", "layer0.0.weight")

    def recognises(self, names: Collection[str]) -> bool:
        numbered = "0.weight" in names and "1.weight" in names and "4.0.conv1.weight" in names
        return numbered or ("layer0.0.weight" in names and "layer1.0.conv1.weight" in names)

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        if "layer0.0.weight" in tensors:
            return renamed(tensors, DEEP_STEM if "layer0.3.weight" in tensors else STEM)
        return renamed(tensors, CHILDREN)

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        return WeightMetadata(preprocessing=USUAL)

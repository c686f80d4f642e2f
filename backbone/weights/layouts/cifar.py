"""Names of the published CIFAR-10 networks of github.com/akamaster/pytorch_resnet_cifar10 and its relatives."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from ...common.preprocessing import USUAL
from ..weight_metadata import WeightMetadata
from .base import Layout, renamed

RULES = [(r"linear\.", "fc."), (r"(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.")]


class Cifar(Layout):
    """torchvision's names but for `linear`, and `shortcut` where there are projections.

    Their trainer.py normalises with ImageNet's mean and standard deviation.
    """

    name = "cifar"
    writable = False

    def recognises(self, names: Collection[str]) -> bool:
        return "conv1.weight" in names and "layer1.0.conv1.weight" in names and "linear.weight" in names

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        return renamed(tensors, RULES)

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        return WeightMetadata(preprocessing=USUAL)

"""torchvision's names: ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from ...common.preprocessing import USUAL
from ..weight_metadata import WeightMetadata
from .base import Layout, with_counters


class Torchvision(Layout):
    """torchvision's ResNets, ResNeXts, wide ResNets and VGGs; our other networks' names follow the same pattern.

    Many tools share these names, with the stride in either place (OpenMMLab's "caffe" style keeps them for MSRA's
    weights), so they tell nothing but the usual preprocessing.
    """

    name = "torchvision"
    anchors = ("layer1.0.conv1.weight", "features.0.weight")

    def recognises(self, names: Collection[str]) -> bool:
        vgg = "features.0.weight" in names and "features.4.0.conv1.weight" not in names
        return vgg or "layer1.0.conv1.weight" in names

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        return dict(tensors)

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        return WeightMetadata(preprocessing=USUAL)

    def from_ours(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        return with_counters(state)

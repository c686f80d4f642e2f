"""OpenMMLab's names: MMDetection (mmdet/models/backbones/resnet.py) and MMPretrain (mmpretrain/models)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from ...common.preprocessing import USUAL
from ..weight_metadata import WeightMetadata
from .base import (
    Layout,
    Rule,
    pooled_shortcuts,
    refuse,
    renamed,
    straight_shortcuts,
    structure,
    with_counters,
    with_pooling,
)

READ: list[Rule] = [
    (r"backbone\.", ""),
    (r"head\.fc\.", "fc."),
]
STEMS: list[Rule] = [
    # MMPretrain's deep stem: three modules of conv and bn.
    (r"stem\.([01])\.conv\.", lambda m: f"conv1.{3 * int(m[1])}."),
    (r"stem\.([01])\.bn\.", lambda m: f"conv1.{3 * int(m[1]) + 1}."),
    (r"stem\.2\.conv\.", "conv1.6."),
    (r"stem\.2\.bn\.", "bn1."),
    # MMDetection's: one sequence, whose last norm is our bn1.
    (r"stem\.7\.", "bn1."),
    (r"stem\.(\d)\.", r"conv1.\1."),
    (r"gn1\.", "bn1."),
    (r"(layer\d\.\d+)\.gn(\d)\.", r"\1.bn\2."),
]
GROUP_NORM: list[Rule] = [(r"bn1\.", "gn1."), (r"(layer\d\.\d+)\.bn(\d)\.", r"\1.gn\2.")]


class MMDetection(Layout):
    """A backbone as MMDetection builds it, without a classifier; reads MMPretrain's classifiers too.

    Their "pytorch" and "caffe" styles (stride in the 3x3 or the 1x1, RGB or BGR) share the names.
    """

    name = "mmdet"
    container = "state_dict"

    def recognises(self, names: Collection[str]) -> bool:
        own = any(name in names for name in ("stem.0.weight", "stem.0.conv.weight", "gn1.weight", "head.fc.weight"))
        wrapped = "backbone.layer1.0.conv1.weight" in names and "head.fc.weight" in names
        return wrapped or (own and "layer1.0.conv1.weight" in names)

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        return straight_shortcuts(renamed(renamed(tensors, READ), STEMS))

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        average_down = True if pooled_shortcuts(renamed(tensors, READ)) else None
        return WeightMetadata(preprocessing=USUAL, average_down=average_down)

    def check(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        has = structure(network, state)
        refuse(self.name, network, has, "vgg", "preact", "cifar", "plain", "all_projections")

    def from_ours(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        has = structure(network, state)
        backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
        backbone = renamed(with_counters(backbone), [*self._stem(has["deep"]), *(GROUP_NORM if has["gn"] else [])])
        return self._shortcuts(backbone) if has["average_down"] else backbone

    def _stem(self, deep: bool) -> list[Rule]:
        return [(r"conv1\.(\d)\.", r"stem.\1."), (r"bn1\.", "stem.7.")] if deep else []

    def _shortcuts(self, backbone: dict[str, Tensor]) -> dict[str, Tensor]:
        # MMDetection pools (by 1) in the first stage too.
        return with_pooling(backbone)


class MMPretrain(MMDetection):
    """A classifier as MMPretrain builds it: `backbone.` and `head.fc`. Read by MMDetection's entry."""

    name = "mmpretrain"

    def recognises(self, names: Collection[str]) -> bool:
        return False

    def from_ours(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        backbone = {f"backbone.{name}": value for name, value in super().from_ours(state, network).items()}
        return backbone | {f"head.{name}": value for name, value in state.items() if name.startswith("fc.")}

    def _stem(self, deep: bool) -> list[Rule]:
        if not deep:
            return []
        return [
            (r"conv1\.([03])\.", lambda m: f"stem.{int(m[1]) // 3}.conv."),
            (r"conv1\.([14])\.", lambda m: f"stem.{int(m[1]) // 3}.bn."),
            (r"conv1\.6\.", "stem.2.conv."),
            (r"bn1\.", "stem.2.bn."),
        ]

    def _shortcuts(self, backbone: dict[str, Tensor]) -> dict[str, Tensor]:
        return with_pooling(backbone, "[2-9]")

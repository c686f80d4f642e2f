"""timm's names (github.com/huggingface/pytorch-image-models): resnet.py, resnetv2.py and vgg.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from ...common.errors import WeightsError
from ...common.preprocessing import HALVES, USUAL
from ..weight_metadata import WeightMetadata
from .base import (
    Layout,
    Rule,
    block,
    pooled_shortcuts,
    refuse,
    renamed,
    straight_shortcuts,
    structure,
    with_counters,
    with_pooling,
)

PREACT: list[Rule] = [
    (r"stages\.(\d)\.blocks\.(\d+)\.norm(\d)\.", lambda m: f"{block(m, 1)}bn{m[3]}."),
    (r"stages\.(\d)\.blocks\.(\d+)\.downsample\.conv\.", lambda m: f"{block(m, 1)}downsample.0."),
    (r"stages\.(\d)\.blocks\.(\d+)\.", lambda m: block(m, 1)),
    (r"stem\.conv\.", "conv1."),
    # The deep stem: conv1, norm1, conv2, norm2, conv3 are modules 0, 1, 3, 4, 6 of ours.
    (r"stem\.conv([123])\.", lambda m: f"conv1.{3 * int(m[1]) - 3}."),
    (r"stem\.norm([12])\.", lambda m: f"conv1.{3 * int(m[1]) - 2}."),
    (r"norm\.", "bn."),
    (r"head\.fc\.", "fc."),
]
PREACT_BACK: list[Rule] = [
    (r"layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"{_stage(m)}norm{m[3]}."),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"{_stage(m)}downsample.conv."),
    (r"layer(\d)\.(\d+)\.", lambda m: _stage(m)),
    (r"conv1\.([036])\.", lambda m: f"stem.conv{int(m[1]) // 3 + 1}."),
    (r"conv1\.([14])\.", lambda m: f"stem.norm{int(m[1]) // 3 + 1}."),
    (r"conv1\.", "stem.conv."),
    (r"bn\.", "norm."),
    (r"fc\.", "head.fc."),
]
VGG: list[Rule] = [
    (r"pre_logits\.fc1\.", "classifier.0."),
    (r"pre_logits\.fc2\.", "classifier.3."),
    (r"head\.fc\.", "classifier.6."),
]
VGG_BACK: list[Rule] = [
    (r"classifier\.0\.", "pre_logits.fc1."),
    (r"classifier\.3\.", "pre_logits.fc2."),
    (r"classifier\.6\.", "head.fc."),
]


def _stage(match) -> str:
    return f"stages.{int(match[1]) - 1}.blocks.{match[2]}."


class Timm(Layout):
    """ResNets have torchvision's names, with shortcuts moved by one where they average; pre-activation networks
    (resnetv2_*) and VGG's classifier, which is convolutions there, have their own."""

    name = "timm"
    anchors = ("stages.0.blocks.0.conv1.weight",)

    def recognises(self, names: Collection[str]) -> bool:
        own = "stages.0.blocks.0.conv1.weight" in names or "pre_logits.fc1.weight" in names
        return own or ("bn1.weight" in names and bool(pooled_shortcuts(names)))

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        if "stages.0.blocks.0.conv1.weight" in tensors:
            if "stem.conv.weight" in tensors and "stages.0.blocks.0.norm1.running_mean" not in tensors:
                raise WeightsError("weights of timm's BiT, whose standardised convolutions no network here has")
            ours = renamed(tensors, PREACT)
            return ours | {name: ours[name].flatten(1) for name in ("fc.weight",) if name in ours}
        if "pre_logits.fc1.weight" in tensors:
            ours = renamed(tensors, VGG)
            layers = ("classifier.0.weight", "classifier.3.weight")
            return ours | {name: ours[name].flatten(1) for name in layers if name in ours}
        return straight_shortcuts(tensors)

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        if "stages.0.blocks.0.conv1.weight" in tensors:
            # Every resnetv2 with a deep stem there averages in its shortcuts, no other does; the names are the same.
            return WeightMetadata(preprocessing=HALVES, average_down="stem.conv1.weight" in tensors)
        average_down = True if pooled_shortcuts(tensors) else None
        return WeightMetadata(preprocessing=USUAL, average_down=average_down)

    def check(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        has = structure(network, state)
        refuse(self.name, network, has, "cifar", "plain", "all_projections", "stride_in_1x1")

    def from_ours(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        has = structure(network, state)
        state = with_counters(state)
        if has["preact"]:
            theirs = renamed(state, PREACT_BACK)
            return theirs | {name: theirs[name][:, :, None, None] for name in ("head.fc.weight",) if name in theirs}
        if has["vgg"]:
            theirs = renamed(state, VGG_BACK)
            for name, side in (("pre_logits.fc1.weight", 7), ("pre_logits.fc2.weight", 1)):
                if name in theirs:
                    theirs[name] = theirs[name].unflatten(1, (-1, side, side))
            return theirs
        return with_pooling(state) if has["average_down"] else dict(state)

"""transformers' names: ResNetBackbone, ResNetModel, ResNetForImageClassification, and RT-DETR's ResNet-D."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from ...common.errors import WeightsError
from ...common.preprocessing import USUAL
from ..weight_metadata import WeightMetadata
from .base import Layout, Rule, block, refuse, renamed, structure, with_counters

FIRST = "encoder.stages.0.layers.0.layer.0.convolution.weight"
BLOCK = r"(?:resnet\.)?encoder\.stages\.(\d)\.layers\.(\d+)\."
STEM = r"(?:resnet\.)?embedder\.embedder\."
READ: list[Rule] = [
    # In RT-DETR's ResNet a shortcut that averages is a sequence of pooling and projection.
    (BLOCK + r"shortcut\.(?:1\.)?convolution\.", lambda m: f"{block(m, 1)}downsample.0."),
    (BLOCK + r"shortcut\.(?:1\.)?normalization\.", lambda m: f"{block(m, 1)}downsample.1."),
    (BLOCK + r"layer\.(\d)\.convolution\.", lambda m: f"{block(m, 1)}conv{int(m[3]) + 1}."),
    (BLOCK + r"layer\.(\d)\.normalization\.", lambda m: f"{block(m, 1)}bn{int(m[3]) + 1}."),
    (STEM + r"(?:normalization|2\.normalization)\.", "bn1."),
    (STEM + r"convolution\.", "conv1."),
    (STEM + r"(\d)\.convolution\.", lambda m: f"conv1.{3 * int(m[1])}."),
    (STEM + r"(\d)\.normalization\.", lambda m: f"conv1.{3 * int(m[1]) + 1}."),
    (r"classifier\.1\.", "fc."),
]
WRITE: list[Rule] = [
    (r"layer(\d)\.(\d+)\.conv(\d)\.", lambda m: f"{_layers(m)}layer.{int(m[3]) - 1}.convolution."),
    (r"layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"{_layers(m)}layer.{int(m[3]) - 1}.normalization."),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"{_layers(m)}shortcut.convolution."),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"{_layers(m)}shortcut.normalization."),
    (r"conv1\.([036])\.", lambda m: f"embedder.embedder.{int(m[1]) // 3}.convolution."),
    (r"conv1\.([14])\.", lambda m: f"embedder.embedder.{int(m[1]) // 3}.normalization."),
    (r"conv1\.", "embedder.embedder.convolution."),
    (r"bn1\.", "embedder.embedder.normalization."),
]
# In RT-DETR's ResNet the deep stem's last norm belongs to its third convolution.
WRITE_DEEP: list[Rule] = [(r"bn1\.", "embedder.embedder.2.normalization."), *WRITE]
AVERAGED = (r"(encoder\.stages\.[1-9]\.layers\.\d+\.shortcut\.)", r"\g<1>1.")


def _layers(match) -> str:
    return f"encoder.stages.{int(match[1]) - 1}.layers.{match[2]}."


class HuggingFace(Layout):
    """Written without a classifier as ResNetBackbone (and ResNetModel) have them, with one as
    ResNetForImageClassification; with the deep stem and averaging shortcuts as RTDetrResNetBackbone."""

    name = "huggingface"
    anchors = (FIRST,)

    def recognises(self, names: Collection[str]) -> bool:
        return FIRST in names or f"resnet.{FIRST}" in names

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        return renamed(tensors, READ)

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        average_down = True if any(".shortcut.1." in name for name in tensors) else None
        return WeightMetadata(preprocessing=USUAL, average_down=average_down)

    def check(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        has = structure(network, state)
        unknown = ("vgg", "preact", "cifar", "plain", "all_projections", "groups", "wide", "gn")
        refuse(self.name, network, has, *unknown)
        if has["deep"] != has["average_down"]:
            raise WeightsError(
                f"layout {self.name!r} has no {network.architecture} of this form: transformers has the deep stem and "
                "averaging shortcuts together (RT-DETR's ResNet) or neither; layout 'torchvision' takes every network"
            )
        if has["deep"] and "layer1.0.conv3.weight" not in state:
            raise WeightsError(
                f"layout {self.name!r} has no {network.architecture} of this form: RT-DETR's ResNet-D of basic blocks "
                "projects in the first stage too; layout 'torchvision' takes every network"
            )

    def from_ours(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        deep = structure(network, state)["deep"]
        theirs = renamed(with_counters(state), WRITE_DEEP if deep else WRITE)
        if deep:
            theirs = renamed(theirs, [AVERAGED])
        if "fc.weight" in theirs:
            wrapped = {name: f"resnet.{name}" for name in theirs if not name.startswith("fc.")}
            wrapped |= {name: name.replace("fc.", "classifier.1.", 1) for name in theirs if name.startswith("fc.")}
            return {wrapped[name]: value for name, value in theirs.items()}
        return theirs

"""A dilated ResNet with a segmentation head of torchvision or MMSegmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from ..common.errors import ConfigError
from ..engine.defaults import network_keywords
from ..engine.solver import device_of
from ..networks import Backbone, create, keywords_of
from ..networks.norm import synchronise_norm
from . import heads

OUT, AUX = "out", "aux"
# Of DeepLabV3 at output stride 8 (Chen et al., arXiv 1706.05587, Sec. 3.3); at 16 they are halved.
RATES_AT_8 = (12, 24, 36)


class SegmentationNetwork(nn.Module):
    """Backbone, head on its last stage and, for training, a head on the stage before. Names are torchvision's.

    Args:
        network: gives its last stage, and the one before where there is an auxiliary head.
        classifier, aux_classifier: from a stage's features to (N, classes, h, w).
        align_corners: how the scores are enlarged, as of torch's `interpolate`.
    """

    def __init__(
        self,
        network: Backbone,
        classifier: nn.Module,
        aux_classifier: nn.Module | None = None,
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = network
        self.classifier = classifier
        self.aux_classifier = aux_classifier
        self.align_corners = align_corners

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Compute the scores of every class at every pixel.

        Args:
            images: (N, C, H, W), preprocessed as the backbone's weights ask.
            size: (height, width) of the scores; by default the images'.

        Returns:
            "out" and, in training with an auxiliary head, "aux": (N, classes, height, width) float32 logits.
        """
        size = images.shape[-2:] if size is None else size
        features = list(self.backbone(images).values())
        scores = {OUT: self._enlarge(self.classifier(features[-1]), size)}
        if self.training and self.aux_classifier is not None:
            scores[AUX] = self._enlarge(self.aux_classifier(features[-2]), size)
        return scores

    def _enlarge(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(scores.float(), size=tuple(size), mode="bilinear", align_corners=self.align_corners)


def atrous_rates(config: Any) -> tuple[int, ...]:
    """Return the dilations of DeepLabV3's parallel convolutions."""
    stride = config.MODEL.OUTPUT_STRIDE
    return tuple(config.MODEL.HEAD.ATROUS_RATES) or tuple(rate * 8 // stride for rate in RATES_AT_8)


def build(config: Any, classes: int) -> SegmentationNetwork:
    """Build the network of MODEL for a number of classes, on its device.

    Raises:
        ConfigError: this backbone has no such keyword.
        ArchitectureError: a keyword has a value that this backbone cannot take.
    """
    model = config.MODEL
    network = _build_backbone(config)
    channels = [info.channels for info in network.feature_info.values()]
    head = _head(config, channels[-1], classes)
    auxiliary = FCNHead(channels[-2], classes) if model.HEAD.AUX_WEIGHT else None
    whole = SegmentationNetwork(network, head, auxiliary, align_corners=model.HEAD.ALIGN_CORNERS)
    if model.NORM == "sync_bn":
        whole = synchronise_norm(whole)
    layout = torch.channels_last if model.CHANNELS_LAST else torch.contiguous_format
    return whole.to(device_of(config), memory_format=layout)


def _head(config: Any, channels: int, classes: int) -> nn.Module:
    head = config.MODEL.HEAD
    theirs, corners = head.STYLE == "mmsegmentation", {"align_corners": head.ALIGN_CORNERS}
    if head.NAME == "pspnet":
        return heads.PSPNet(channels, classes, **corners)
    if head.NAME == "deeplabv3":
        rates = atrous_rates(config)
        return heads.DeepLabV3(channels, classes, rates, **corners) if theirs else DeepLabHead(channels, classes, rates)
    return heads.FCN(channels, classes) if theirs else FCNHead(channels, classes)


def last_layers(network: SegmentationNetwork) -> tuple[str, ...]:
    """Return the names of the layers that give the classes, each with a dot behind it."""
    parts = {"classifier.": network.classifier, "aux_classifier.": network.aux_classifier}
    return tuple(
        f"{name}{'conv_seg' if isinstance(head, heads.Head) else len(head) - 1}."
        for name, head in parts.items()
        if head is not None
    )


def _build_backbone(config: Any) -> Backbone:
    model = config.MODEL
    known = keywords_of(model.NAME)
    if "output_stride" not in known:
        raise ConfigError(f"MODEL.NAME {model.NAME}: cannot be dilated; take a ResNet such as resnet50")
    return create(
        model.NAME,
        out_features=("res4", "res5") if model.HEAD.AUX_WEIGHT else ("res5",),
        freeze_at=model.FREEZE_AT,
        output_stride=model.OUTPUT_STRIDE,
        dilation_style=model.DILATION_STYLE,
        ceil_pool=model.CEIL_POOL,
        **network_keywords(model),
    )

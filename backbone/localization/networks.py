"""A classification network with two layers of each class: the RPN on its last feature map, or R-CNN on their mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import ConfigError
from ..engine.defaults import network_keywords
from ..engine.solver import device_of
from ..networks import Backbone, create, keywords_of

RPN, RCNN = "rpn", "rcnn"
STAGE, STRIDE = "res5", 32


class LocalizationNetwork(nn.Module):
    """Backbone, and two sibling 1x1 convolutions: a binary score and a box regression of every class and anchor.

    Only the outputs of wanted classes are computed: an image has a few, the layers have a thousand.

    Args:
        network: gives its last stage.
        anchors: at each position; R-CNN has one, the region that it is given.
        pool: average the last stage first, as a classifier does (R-CNN).

    Attributes:
        score: (classes * anchors, C, 1, 1) weights, the anchors of a class together.
        box: (classes * anchors * 4, C, 1, 1).
    """

    def __init__(self, network: Backbone, classes: int, anchors: int, *, pool: bool) -> None:
        super().__init__()
        self.backbone = network
        self.anchors = anchors
        self.pool = pool
        channels = network.feature_info[STAGE].channels
        self.score = nn.Conv2d(channels, classes * anchors, 1)
        self.box = nn.Conv2d(channels, classes * anchors * 4, 1)
        for layer in (self.score, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and regressions.

        Args:
            images: (N, 3, H, W), preprocessed.
            classes: (N, k) int64, the wanted classes of each image.

        Returns:
            (N, k, A, h, w) and (N, k, A, h, w, 4), float32.
        """
        features = self.backbone(images)[STAGE]
        if self.pool:
            features = features.mean((2, 3), keepdim=True)
        scores = self._of_classes(self.score, features, classes, self.anchors)
        boxes = self._of_classes(self.box, features, classes, self.anchors * 4)
        return scores, boxes.unflatten(2, (self.anchors, 4)).movedim(3, -1)

    @staticmethod
    def _of_classes(layer: nn.Conv2d, features: Tensor, classes: Tensor, outputs: int) -> Tensor:
        """Return the `outputs` of each wanted class, (N, k, outputs, h, w)."""
        weight = layer.weight.flatten(1).unflatten(0, (-1, outputs))[classes].flatten(1, 2)
        bias = layer.bias.unflatten(0, (-1, outputs))[classes].flatten(1, 2)
        found = torch.baddbmm(bias[:, :, None], weight.to(features.dtype), features.flatten(2)).float()
        return found.unflatten(1, (classes.shape[1], outputs)).unflatten(3, features.shape[2:])


def build(config: Any, classes: int) -> LocalizationNetwork:
    """Build the network of MODEL, on its device.

    Raises:
        ConfigError: this backbone has no last stage of stride 32, or no such keyword.
    """
    model = config.MODEL
    if "stride_in_1x1" not in keywords_of(model.NAME) or "norm" not in keywords_of(model.NAME):
        raise ConfigError(f"MODEL.NAME {model.NAME}: localisation stands on a ResNet such as resnet101")
    network = create(model.NAME, out_features=(STAGE,), **network_keywords(model))
    anchors = len(model.ANCHOR_SIZES) * len(model.ANCHOR_RATIOS) if model.KIND == RPN else 1
    whole = LocalizationNetwork(network, classes, anchors, pool=model.KIND == RCNN)
    layout = torch.channels_last if model.CHANNELS_LAST else torch.contiguous_format
    return whole.to(device_of(config), memory_format=layout)

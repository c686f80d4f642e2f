"""Losses of the class scores of regions other than detectron2's: sigmoid and focal, and weights of the classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from backbone import ConfigError

from .regions import SizedOutputLayers

SOFTMAX, SIGMOID, FOCAL = CLASS_LOSSES = ("softmax", "sigmoid", "focal")
# The probability that a class of SIGMOID and FOCAL has at the start, as in RetinaNet: regions are background.
PRIOR = 0.01


class LossOutputLayers(SizedOutputLayers):
    """detectron2's sibling layers with another loss of the class scores.

    With SIGMOID and FOCAL, each class has a probability of its own, and the background none: its column of `cls_score`
    is trained by nothing.

    Attributes:
        class_loss: one of CLASS_LOSSES.
        class_weights: a buffer, of the K classes; the background's is 1. Without it, all weigh the same.
    """

    class_loss = SOFTMAX
    gamma, alpha = 2.0, 0.25

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> dict[str, Tensor]:
        """Return loss_cls and loss_box_reg. See detectron2's."""
        scores, deltas = predictions
        labels = torch.cat([image.gt_classes for image in proposals])
        loss = self.loss_of(scores, labels) * self.loss_weight.get("loss_cls", 1.0)
        if self.class_loss != SOFTMAX:
            # For detectron2's counts: the background wins where no class is likelier than not.
            scores = torch.cat([scores[:, :-1], torch.zeros_like(scores[:, -1:])], dim=1)
        return {**super().losses((scores, deltas), proposals), "loss_cls": loss}

    def loss_of(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits (R, K + 1) for labels (R,), K the background.

        SOFTMAX is torch's cross-entropy, a mean weighted by the classes; the others are summed over regions and
        classes, each class times its weight, and divided by the regions.
        """
        if not len(labels):
            return scores.sum() * 0.0
        weights = getattr(self, "class_weights", None)
        if self.class_loss == SOFTMAX:
            weights = None if weights is None else F.pad(weights, (0, 1), value=1.0)
            return F.cross_entropy(scores, labels, weight=weights)
        target = F.one_hot(labels, scores.shape[1])[:, :-1].to(scores.dtype)
        if self.class_loss == FOCAL:
            losses = sigmoid_focal_loss(scores[:, :-1], target, alpha=self.alpha, gamma=self.gamma)
        else:
            losses = F.binary_cross_entropy_with_logits(scores[:, :-1], target, reduction="none")
        return (losses if weights is None else losses * weights).sum() / len(labels)

    def predict_probs(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> list[Tensor]:
        """Return the probabilities (R, K + 1) of each image. See detectron2's."""
        return list(class_probabilities(self, predictions[0]).split([len(image) for image in proposals]))


def class_probabilities(layers: nn.Module, logits: Tensor) -> Tensor:
    """Return what sibling layers make of logits (R, K + 1); the last column is the background's."""
    return logits.softmax(-1) if getattr(layers, "class_loss", SOFTMAX) == SOFTMAX else logits.sigmoid()


def output_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the sibling layers whose loss can be another: detectron2's and ours, not a user's own."""
    for module in model.modules():
        if type(module) in (FastRCNNOutputLayers, SizedOutputLayers, LossOutputLayers):
            yield module


def set_class_loss(model: nn.Module, config: CfgNode) -> None:
    """Give a new detector the loss of MODEL.ROI_BOX_HEAD.CLASS_LOSS.

    Raises:
        ConfigError: its sibling layers are a user's own.
    """
    box = config.MODEL.ROI_BOX_HEAD
    # detectron2's own configs have no such key.
    kind = box.get("CLASS_LOSS", SOFTMAX)
    if kind == SOFTMAX or not isinstance(model, GeneralizedRCNN):
        return
    for layers in _known(model, "MODEL.ROI_BOX_HEAD.CLASS_LOSS", config):
        layers.__class__ = LossOutputLayers
        layers.class_loss, layers.gamma, layers.alpha = kind, box.FOCAL_GAMMA, box.FOCAL_ALPHA
        nn.init.constant_(layers.cls_score.bias, -math.log((1 - PRIOR) / PRIOR))


def set_class_weights(model: nn.Module, weights: Sequence[float], config: CfgNode) -> None:
    """Weight the classes in the loss of the box head; weights of 1 change nothing.

    Raises:
        ConfigError: its sibling layers are a user's own.
    """
    if all(weight == 1 for weight in weights):
        return
    for layers in _known(model, "SOLVER.CLASS_WEIGHTS and CLASS_BALANCE", config):
        layers.__class__ = LossOutputLayers
        values = torch.tensor(weights, dtype=torch.float32, device=layers.cls_score.weight.device)
        layers.register_buffer("class_weights", values, persistent=False)


def _known(model: nn.Module, keys: str, config: CfgNode) -> list[nn.Module]:
    found = list(output_layers(model))
    if not found:
        raise ConfigError(
            f"{keys}: the box head of {config.MODEL.ROI_HEADS.NAME} is your own, its loss stays; leave it out"
        )
    return found

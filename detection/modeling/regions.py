"""The global context beside the features of regions.

Global context (Appendix B of the paper): the whole image is one more region; pooled and put through the same layers,
its feature is concatenated with that of each region of the image. It is trained end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat, cross_entropy
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn

from .sampling import box_deltas, drawn_foreground, indices


class ContextMixin:
    """Before one of detectron2's ROIHeads among a class's bases: sibling layers that take the global context too.

    Attributes:
        global_context: as MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT says.
    """

    @configurable
    def __init__(self, *, global_context: bool = False, **parts: Any) -> None:
        super().__init__(**parts)
        self.global_context = global_context

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super().from_config(cfg, input_shape)
        # detectron2's own configs have no such keys.
        own = cfg.MODEL.ROI_BOX_HEAD
        context, least_side = own.get("GLOBAL_CONTEXT", False), own.get("MIN_SIZE_TEST", 0.0)
        if context or least_side:
            # With context, features are twice as long: the region's and its image's.
            channels = (1 + context) * parts["box_predictor"].cls_score.in_features
            parts["box_predictor"] = SizedOutputLayers(cfg, ShapeSpec(channels=channels))
            parts["box_predictor"].least_side = least_side
            parts["global_context"] = context
        return parts


class SizedOutputLayers(FastRCNNOutputLayers):
    """detectron2's sibling layers, which drop boxes with a side below `least_side` pixels before NMS."""

    least_side = 0.0

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> dict[str, Tensor]:
        """Return loss_cls and loss_box_reg. See detectron2's; of regions of SparingSampling, without a wait."""
        numbers = [drawn_foreground(image) for image in proposals]
        # detectron2's main branch has another loss of the classes.
        others = self.box_reg_loss_type != "smooth_l1" or getattr(self, "use_sigmoid_ce", False)
        if not numbers or None in numbers or others:
            return super().losses(predictions, proposals)
        scores, deltas = predictions
        labels = cat([image.gt_classes for image in proposals])
        boxes = cat([image.proposal_boxes.tensor for image in proposals])
        # An image without objects has no true boxes, and no foreground that would need one.
        true = [image.gt_boxes if image.has("gt_boxes") else image.proposal_boxes for image in proposals]
        truth = cat([image.tensor for image in true])
        number = sum(numbers)
        _count_classes(scores, labels, number)
        chosen = indices(labels < self.num_classes, number)
        if deltas.shape[1] == boxes.shape[1]:
            of_classes = deltas[chosen]
        else:
            of_classes = deltas.view(-1, self.num_classes, boxes.shape[1])[chosen, labels[chosen]]
        wanted = box_deltas(self.box2box_transform, boxes[chosen], truth[chosen])
        losses = {
            "loss_cls": cross_entropy(scores, labels, reduction="mean"),
            "loss_box_reg": smooth_l1_loss(of_classes, wanted, self.smooth_l1_beta, reduction="sum")
            / max(len(labels), 1.0),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """See detectron2's."""
        boxes, scores = self.predict_boxes(predictions, proposals), self.predict_probs(predictions, proposals)
        sizes = [image.image_size for image in proposals]
        scores = [without_small(*found, self.least_side) for found in zip(boxes, scores, sizes)]
        limits = (self.test_score_thresh, self.test_nms_thresh, self.test_topk_per_image)
        return fast_rcnn_inference(boxes, scores, sizes, *limits)


def _count_classes(scores: Tensor, labels: Tensor, foreground: int) -> None:
    """Note detectron2's accuracies of logits (R, K + 1) in the storage."""
    if not len(labels):
        return
    storage, background = get_event_storage(), scores.shape[1] - 1
    found = scores.argmax(dim=1)
    right, is_object = found == labels, labels < background
    storage.put_scalar("fast_rcnn/cls_accuracy", right.sum().double() / len(labels))
    if foreground:
        storage.put_scalar("fast_rcnn/fg_cls_accuracy", (right & is_object).sum().double() / foreground)
        missed = (found == background) & is_object
        storage.put_scalar("fast_rcnn/false_negative", missed.sum().double() / foreground)


def without_small(boxes: Tensor, scores: Tensor, size: tuple[int, int], least_side: float) -> Tensor:
    """Return scores (R, K + 1), 0 where a box has, inside the image (height, width), a side below `least_side`.

    Args:
        boxes: (R, 4 K), or (R, 4) for boxes that all classes share.
    """
    if not least_side:
        return scores
    clipped = Boxes(boxes.reshape(-1, 4).clone())
    clipped.clip(size)
    corners = clipped.tensor.reshape(-1, boxes.shape[1] // 4, 4)
    small = ((corners[..., 2:] - corners[..., :2]) < least_side).any(-1)
    objects = scores[:, :-1].masked_fill(small.expand(-1, scores.shape[1] - 1), 0)
    return torch.cat([objects, scores[:, -1:]], dim=1)


def whole_images(sizes: Sequence[tuple[int, int]], like: Tensor) -> list[Boxes]:
    """Return one box for each image of size (height, width), its padding left out, on the device of `like`."""
    return [Boxes(like.new_tensor([[0.0, 0.0, width, height]])) for height, width in sizes]


def append_context(regions: Tensor, context: Tensor, counts: Sequence[int]) -> Tensor:
    """Return (R, 2D): each region's feature (R, D), then its image's (N, D); `counts` are the regions of each image."""
    of_region = torch.repeat_interleave(context, torch.tensor(counts, device=context.device), dim=0)
    return torch.cat([regions, of_region], dim=1)


def with_context(
    head: nn.Module,
    features: dict[str, Tensor],
    regions: Tensor,
    boxes: Sequence[Boxes],
    sizes: Sequence[tuple[int, int]],
) -> Tensor:
    """Pool the whole images, of size (height, width), and append their features to those of their boxes."""
    context = head.region_features(features, whole_images(sizes, regions))
    return append_context(regions, context, [len(found) for found in boxes])

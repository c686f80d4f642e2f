"""The global context beside the features of regions.

Global context (Appendix B of the paper): the whole image is one more region; pooled and put through the same layers,
its feature is concatenated with that of each region of the image. It is trained end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn


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

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """See detectron2's."""
        boxes, scores = self.predict_boxes(predictions, proposals), self.predict_probs(predictions, proposals)
        sizes = [image.image_size for image in proposals]
        scores = [without_small(*found, self.least_side) for found in zip(boxes, scores, sizes)]
        limits = (self.test_score_thresh, self.test_nms_thresh, self.test_topk_per_image)
        return fast_rcnn_inference(boxes, scores, sizes, *limits)


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

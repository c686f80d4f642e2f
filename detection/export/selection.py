"""Choosing boxes of several images at once, without a loop over images that a trace would keep as it was."""

from __future__ import annotations

import sys
from typing import Any

import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor
from torchvision.ops import nms


class FlatPooler(ROIPooler):
    """detectron2's ROIPooler for one list of boxes, which are in `images` (R,) of the batch. A pooler becomes one by
    its class, and keeps its hooks."""

    images: Tensor | None = None

    def forward(self, maps: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """Return the features (R, C, h, w) of the boxes of the list's one entry."""
        # OpenVINO's max pooling wants to know that each row has five numbers.
        regions = torch.cat([self.images[:, None].to(boxes[0].tensor), boxes[0].tensor], dim=1).reshape(-1, 5)
        if len(maps) == 1:
            return self.level_poolers[0](maps[0], regions)
        limits = (self.min_level, self.max_level, self.canonical_box_size, self.canonical_level)
        levels = assign_boxes_to_levels(boxes, *limits)
        pooled = maps[0].new_zeros((regions.shape[0], maps[0].shape[1], *self.output_size))
        for level, (features, layer) in enumerate(zip(maps, self.level_poolers)):
            rows = rows_of(levels == level)
            pooled = pooled.index_put((rows,), layer(features, regions[rows]))
        return pooled


class _Suppression(torch.autograd.Function):
    """ONNX's NonMaxSuppression, which has an axis for images: no offsets between them, so nothing is rounded."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, overlap: float, least: float) -> Tensor:
        rows = [torch.zeros((0, 3), dtype=torch.int64)]
        for image, kind in torch.cartesian_prod(*map(torch.arange, scores.shape[:2])).tolist():
            above = rows_of(scores[image, kind] > least)
            kept = above[nms(boxes[image][above], scores[image, kind][above], overlap)]
            rows.append(torch.stack([torch.full_like(kept, image), torch.full_like(kept, kind), kept], dim=1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, overlap: float, least: float) -> Any:
        most = g.op("Constant", value_t=torch.tensor([sys.maxsize]))
        limits = [g.op("Constant", value_t=torch.tensor([value])) for value in (overlap, least)]
        return g.op("NonMaxSuppression", boxes, scores, most, *limits)


def survivors(boxes: Tensor, scores: Tensor, overlap: float, least: float) -> Tensor:
    """Return which of the candidates non-maximum suppression keeps in each image and class: (N, K, P) bool.

    Args:
        boxes: (N, K, P, 4), or (N, 1, P, 4) where all classes share them; scores: (N, K, P).
        overlap: of two with a larger IoU one goes; least: scores up to it are no candidates.
    """
    shared = boxes.shape[1] == 1
    rows = scores if shared else scores.flatten(0, 1)[:, None]
    chosen = _Suppression.apply(boxes.flatten(0, 1), rows, float(overlap), float(least))
    places = (chosen[:, 0] * rows.shape[1] + chosen[:, 1]) * rows.shape[2] + chosen[:, 2]
    kept = torch.zeros_like(scores).flatten().index_put((places,), torch.ones_like(places).to(scores))
    return kept.view(scores.shape) > 0


def best(boxes: Tensor, scores: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return boxes (M, 4), scores, classes and images (M,) of the `number` best of each image, those above 0.

    Args:
        boxes, scores: as of `survivors`.
    """
    places = scores.shape[2]
    values, order = scores.flatten(1).topk(at_most(scores.shape[1] * places, number), dim=1)
    rows = rows_of(values > 0)
    images, order = torch.div(rows, values.shape[1], rounding_mode="floor"), order.flatten()[rows]
    classes = torch.div(order, places, rounding_mode="floor")
    kinds = classes if boxes.shape[1] > 1 else torch.zeros_like(classes)
    return boxes[images, kinds, order % places], values.flatten()[rows], classes, images


def pick(values: Tensor, order: Tensor) -> Tensor:
    """Return values (N, k, D) of (N, P, D) at the places `order` (N, k)."""
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))


def clipped(boxes: Tensor, size: Any) -> Tensor:
    """Return boxes (R, 4) cut to an image of `size` (height, width)."""
    inside = Boxes(boxes)
    inside.clip(size)
    return inside.tensor


def rows_of(mask: Tensor) -> Tensor:
    """Return where a mask is true, counted through: (M,)."""
    return mask.flatten().nonzero().squeeze(1)


def at_most(count: int | Tensor, limit: int) -> int | Tensor:
    """Return the smaller of both; in a trace, sizes are tensors."""
    return count.clamp(max=limit) if isinstance(count, Tensor) else min(count, limit)

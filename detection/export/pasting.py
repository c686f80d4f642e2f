"""Masks pasted into the image, as detectron2's postprocessing does it, on tensors alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .selection import clipped

THRESHOLD = 0.5


def rescaled(boxes: Tensor, size: Tensor, wanted: Tensor) -> Tensor:
    """Return boxes (M, 4) of an image of `size` (height, width) in the pixels of one of the size `wanted`."""
    scale = wanted.float() / size
    return clipped(boxes * scale[[1, 0, 1, 0]], wanted)


def pasted(masks: Tensor, boxes: Tensor, size: Tensor) -> Tensor:
    """Return masks (M, height, width) bool: where the probability is 0.5 or more.

    Boxes are parallel to the image's sides, so the bilinear interpolation is one matrix for the rows and one for the
    columns. It takes no grid of all pixels, which is the largest part of `grid_sample`.

    Args:
        masks: (M, 1, S, S), probabilities inside each box.
        boxes: (M, 4) XYXY in pixels of the image, none of them empty; size: (2,) height and width, int64.
    """
    rows, columns = (_weights(boxes[:, axis::2], size[1 - axis], masks.shape[-1]) for axis in (1, 0))
    return rows @ masks[:, 0] @ columns.transpose(1, 2) >= THRESHOLD


def _weights(ends: Tensor, length: Tensor, side: int) -> Tensor:
    """Return how much each of `side` places of a mask counts for each pixel, (M, length, side): beyond the mask is 0.

    Args:
        ends: (M, 2), where the mask begins and ends among the pixels.
    """
    first, last = ends[:, :1], ends[:, 1:]
    places = (torch.arange(length) + 0.5 - first) / (last - first) * side - 0.5
    return (1 - (places[:, :, None] - torch.arange(side)).abs()).clamp(min=0)

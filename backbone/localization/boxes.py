"""Boxes (x0, y0, x1, y1), edges in absolute pixels: overlaps, anchors, their sampling, and regression.

Positives, negatives and the regression are those of Faster R-CNN (Ren et al., arXiv 1506.01497, Sec. 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
# A box grows by at most this factor's logarithm, so that no exponential overflows.
MOST_GROWTH = math.log(1000 / 16)


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (N, M) overlaps of boxes (N, 4) and (M, 4); 0 where a box has no area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared, dtype=np.float64), where=union > 0)


def make_anchors(height: int, width: int, stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Return the anchors of a feature map, (A, height, width, 4) float32: centred on its cells, A sizes x ratios.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: heights over widths.
    """
    shapes = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for size in sizes for ratio in ratios]
    half = np.array(shapes, dtype=np.float32).reshape(-1, 1, 1, 2) / 2
    x, y = np.meshgrid((np.arange(width) + 0.5) * stride, (np.arange(height) + 0.5) * stride)
    centre = np.stack([x, y], axis=2).astype(np.float32)[None]
    return np.concatenate([centre - half, centre + half], axis=3)


def sample_anchors(
    anchors: np.ndarray, boxes: np.ndarray, random: np.random.Generator, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw `number` anchors of an image: half of them positive, or as many as there are; negative ones fill up.

    Positive anchors overlap a box by 0.7 or more, or more than all others do; negative ones overlap each box by less
    than 0.3.

    Args:
        anchors: (N, 4). boxes: (M, 4), M may be 0.

    Returns:
        indices (number,) int64; whether each is positive, (number,) bool; and the box of each, (number, 4) float32,
        zeros for negative ones.
    """
    overlap = ious(anchors, boxes) if len(boxes) else np.zeros((len(anchors), 1))
    best = overlap.max(1)
    is_positive = best >= POSITIVE_IOU
    highest = overlap.max(0)
    is_positive |= ((overlap == highest) & (highest > 0)).any(1)
    positives, negatives = np.flatnonzero(is_positive), np.flatnonzero(~is_positive & (best < NEGATIVE_IOU))
    wanted = min(number // 2, len(positives)) if len(negatives) else number
    chosen = [_draw(positives, wanted, random), _draw(negatives, number - wanted, random)]
    indices = np.concatenate(chosen)
    positive = np.arange(number) < wanted
    owners = boxes[overlap[indices].argmax(1)] if len(boxes) else np.zeros((number, 4))
    return indices, positive, np.where(positive[:, None], owners, 0).astype(np.float32)


def _draw(places: np.ndarray, number: int, random: np.random.Generator) -> np.ndarray:
    """Draw without repetition, as far as there are enough."""
    return random.choice(places, number, replace=number > len(places)) if number else places[:0]


def encode(reference: Tensor, boxes: Tensor) -> Tensor:
    """Return (N, 4) what moves `reference` onto `boxes`: shifts of the centre, in its sides, and log growths."""
    centre, sides = _centre(reference)
    to_centre, to_sides = _centre(boxes)
    return torch.cat([(to_centre - centre) / sides, torch.log(to_sides / sides)], dim=-1)


def decode(reference: Tensor, deltas: Tensor) -> Tensor:
    """Return the boxes (..., 4) that `encode` would give `deltas` for."""
    centre, sides = _centre(reference)
    centre = centre + deltas[..., :2] * sides
    half = sides * torch.exp(deltas[..., 2:].clamp(max=MOST_GROWTH)) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]

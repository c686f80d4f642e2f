"""Class probabilities and boxes of regions, and how those of several networks, images or passes become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..proposals import clip


@dataclass(frozen=True)
class RegionScores:
    """Of R regions of one image, for K classes.

    Attributes:
        scores: (R, K + 1) probabilities, the background last.
        boxes: (R, K, 4) XYXY boxes regressed for each class, in pixels.
    """

    scores: Tensor
    boxes: Tensor


def average(found: Sequence[RegionScores]) -> RegionScores:
    """Return the mean probabilities and the mean boxes of the same regions."""
    if len(found) == 1:
        return found[0]
    scores, boxes = (torch.stack([getattr(one, part) for one in found]).mean(0) for part in ("scores", "boxes"))
    return RegionScores(scores, boxes)


def join(found: Sequence[RegionScores]) -> RegionScores:
    """Return the predictions of all regions, one after the other."""
    return RegionScores(torch.cat([one.scores for one in found]), torch.cat([one.boxes for one in found]))


def regressed_boxes(found: RegionScores, size: tuple[int, int]) -> Tensor:
    """Return each region's box (R, 4) of its most probable object class, clipped to the image (height, width)."""
    label = found.scores[:, :-1].argmax(1)
    boxes = found.boxes[torch.arange(len(label), device=label.device), label]
    return clip(boxes[torch.isfinite(boxes).all(1)], size)


def flip_boxes(boxes: Tensor, width: float) -> Tensor:
    """Return XYXY boxes (..., 4) as they lie in the image of that width turned left to right."""
    return torch.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], dim=-1)


def scale_boxes(boxes: Tensor, size: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return XYXY boxes (..., 4) of an image (height, width) as they lie in it resized to `new`."""
    if size == new:
        return boxes
    y, x = new[0] / size[0], new[1] / size[1]
    return boxes * boxes.new_tensor([x, y, x, y])

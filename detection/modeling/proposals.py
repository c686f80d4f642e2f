"""Anchors, boxes and the RPN's proposals by few operators.

On a GPU the host takes longer to start one of these than the GPU to run it. Results stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from detectron2.layers import batched_nms
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, _create_grid_offsets
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch import Tensor

from backbone.engine.loading import to_device
from backbone.networks.conv_norm import runs_eagerly

Size = tuple[int, int]  # height and width


class KeptAnchors(DefaultAnchorGenerator):
    """detectron2's anchors; the places of the largest maps so far are kept, and those of smaller ones cut from them."""

    def _grid_anchors(self, grid_sizes: Sequence[Size]) -> list[Tensor]:
        cells, sizes = list(self.cell_anchors), [tuple(size) for size in grid_sizes]
        form = (tuple(self.strides), self.offset, tuple(cell.device for cell in cells))
        kept = _KEPT.get(self) if runs_eagerly() else None
        if kept is None or not kept.fits(form, sizes):
            kept = _Places.made(form, sizes, kept) if runs_eagerly() else None
            if kept is None:
                return super()._grid_anchors(grid_sizes)
            _KEPT[self] = kept
        return [
            (grid[:height, :width] + cell).reshape(-1, 4)
            for grid, (height, width), cell in zip(kept.grids, sizes, cells)
        ]


@dataclass(frozen=True)
class _Places:
    """Where the cells of maps lie in the image.

    Attributes:
        form: strides, offset and devices.
        sizes: of the maps.
        grids: (H, W, 1, 4) of each: what is added to a cell's anchors.
    """

    form: tuple[Any, ...]
    sizes: list[Size]
    grids: list[Tensor]

    def fits(self, form: tuple[Any, ...], sizes: list[Size]) -> bool:
        """Whether those of maps of these sizes can be cut from it."""
        return (
            self.form == form
            and len(sizes) == len(self.sizes)
            and all(size[0] <= has[0] and size[1] <= has[1] for size, has in zip(sizes, self.sizes))
        )

    @classmethod
    def made(cls, form: tuple[Any, ...], sizes: list[Size], before: _Places | None) -> _Places | None:
        """Return what holds maps of `sizes`, and those of `before` where that stays small; None for maps too large."""
        if before is not None and before.form == form and len(before.sizes) == len(sizes):
            both = [(max(a[0], b[0]), max(a[1], b[1])) for a, b in zip(sizes, before.sizes)]
            sizes = both if _cells(both) <= MOST_CELLS else sizes
        if _cells(sizes) > MOST_CELLS:
            return None
        strides, offset, devices = form
        grids = []
        # Made in inference mode, they could take part in no training.
        with torch.inference_mode(False):
            for size, stride, device in zip(sizes, strides, devices):
                x, y = _create_grid_offsets(size, stride, offset, device)
                grids.append(torch.stack((x, y, x, y), dim=1).view(*size, 1, 4))
        # A mode of torch may make tensors of another kind, which are of use to nobody later.
        return cls(form, sizes, grids) if all(type(grid) is Tensor for grid in grids) else None


def _cells(sizes: list[Size]) -> int:
    return sum(height * width for height, width in sizes)


MOST_CELLS = 2**19  # 8 MiB of places; images of 2,048 x 2,048 pixels have 350,000 at strides of 4 and more
_KEPT: WeakKeyDictionary[KeptAnchors, _Places] = WeakKeyDictionary()


class PairedTransform(Box2BoxTransform):
    """detectron2's turn of deltas into boxes, for both axes at once."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Return boxes (N, 4 * K) of deltas (N, 4 * K) from boxes (N, 4)."""
        of_x, of_y, of_width, of_height = self.weights
        if of_x != of_y or of_width != of_height or not runs_eagerly():
            return super().apply_deltas(deltas, boxes)
        pairs = deltas.float().unflatten(1, (-1, 4))
        boxes = boxes.to(pairs.dtype)[:, None]
        sides = boxes[..., 2:] - boxes[..., :2]
        centres = (pairs[..., :2] / of_x) * sides + (boxes[..., :2] + 0.5 * sides)
        half = 0.5 * (torch.exp((pairs[..., 2:] / of_width).clamp(max=self.scale_clamp)) * sides)
        return torch.cat((centres - half, centres + half), dim=-1).reshape(deltas.shape)


def best_boxes(
    transform: Box2BoxTransform, anchors: list[Boxes], logits: list[Tensor], deltas: list[Tensor], number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes (N, R, 4) of each level's best anchors, their scores (N, R), and their levels (R,).

    Args:
        logits: (N, A) by level; deltas: (N, A, 4) likewise.
        number: of a level at most.
    """
    scores, sources, shifts = [], [], []
    for every, of_level, moved in zip(anchors, logits, deltas):
        best, order = of_level.sort(descending=True, dim=1)
        order = order[:, :number]
        scores.append(best[:, :number])
        sources.append(every.tensor[order])
        shifts.append(moved.gather(1, order[:, :, None].expand(-1, -1, 4)))
    counts = tuple(part.shape[1] for part in scores)
    boxes = transform.apply_deltas(torch.cat(shifts, dim=1).flatten(0, 1), torch.cat(sources, dim=1).flatten(0, 1))
    joined = torch.cat(scores, dim=1)
    return boxes.view(*joined.shape, 4), joined, _levels(counts, boxes.device)


@lru_cache(maxsize=64)
def _levels(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the number of the level of each box, where the levels have so many."""
    with torch.inference_mode(False):
        return to_device(torch.from_numpy(np.repeat(np.arange(len(counts)), counts)), device)


def clip(boxes: Tensor, size: Size) -> Tensor:
    """Return boxes (..., 4) cut off at the borders of an image. Boxes.clip asks first whether they are finite."""
    height, width = size
    columns, rows = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((columns, rows), dim=-1).flatten(-2)


def not_finite(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return which of boxes (N, R, 4) with scores (N, R) hold a number that is not finite."""
    # 0 times such a number is none.
    return (boxes * 0).sum(dim=2) + scores * 0 != 0


def have_size(boxes: Tensor, least: float) -> Tensor:
    """Return which of boxes (R, 4) are wider and higher than `least`."""
    return ((boxes[:, 2:] - boxes[:, :2]) > least).all(dim=1)


def suppressed(boxes: Tensor, scores: Tensor, levels: Tensor, size: Size, *, overlap: float, number: int) -> Instances:
    """Return an image's proposals after NMS by level, the best first."""
    kept = batched_nms(boxes, scores, levels, overlap)[:number]
    return Instances(size, proposal_boxes=Boxes(boxes[kept]), objectness_logits=scores[kept])

"""Anchors, boxes and the RPN's proposals by few operators.

On a GPU the host takes longer to start one of these than the GPU to run it. Results stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch import Tensor

from backbone.networks.conv_norm import runs_eagerly

Size = tuple[int, int]  # height and width


class KeptAnchors(DefaultAnchorGenerator):
    """detectron2's anchors; of each level the largest grid so far is kept, and smaller ones are cut from it."""

    def _grid_anchors(self, grid_sizes: Sequence[Size]) -> list[Tensor]:
        if not runs_eagerly():
            return super()._grid_anchors(grid_sizes)
        kept = self.__dict__.setdefault("_kept", {})
        cells = list(self.cell_anchors)
        state = [(cell.data_ptr(), cell.device, 0 if cell.is_inference() else cell._version) for cell in cells]
        if kept.get("state") != state or any(_exceeds(size, has) for size, has in zip(grid_sizes, kept["sizes"])):
            had = kept["sizes"] if kept.get("state") == state else grid_sizes
            sizes = [(max(size[0], has[0]), max(size[1], has[1])) for size, has in zip(grid_sizes, had)]
            # Made in inference mode, they could take part in no training.
            with torch.inference_mode(False):
                flat = super()._grid_anchors(sizes)
            grids = [anchors.view(*size, -1, 4) for anchors, size in zip(flat, sizes)]
            kept.update(state=state, sizes=sizes, grids=grids)
        return [
            grid[:height, :width].clone(memory_format=torch.contiguous_format).view(-1, 4)
            for grid, (height, width) in zip(kept["grids"], grid_sizes)
        ]

    def __getstate__(self) -> dict[str, Any]:
        # Made again where it is read.
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


def _exceeds(size: Size, has: Size) -> bool:
    return size[0] > has[0] or size[1] > has[1]


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
    return boxes.view(-1, sum(counts), 4), torch.cat(scores, dim=1), _levels(counts, boxes.device)


@lru_cache(maxsize=64)
def _levels(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the number of the level of each box, where the levels have so many."""
    with torch.inference_mode(False):
        return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)


def clipped(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return boxes (R, 4) cut to their image; Boxes.clip asks first whether they are finite."""
    columns, rows = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack((columns, rows), dim=2).view(-1, 4)


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

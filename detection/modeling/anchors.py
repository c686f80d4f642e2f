"""Anchors as torchvision's detectors have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from torch import Tensor


class TorchvisionAnchorGenerator(DefaultAnchorGenerator):
    """detectron2's anchors, with the corners of each rounded to whole pixels, and apart as far as the maps are coarse.

    The distance of two anchors is the padded image's side divided by the cells of the map, rounded down: 61 pixels and
    not 64 where 13 cells cover 800 pixels. MODEL.ANCHOR_GENERATOR.OFFSET is 0.
    """

    def generate_cell_anchors(
        self, sizes: Sequence[float] = (32, 64, 128, 256, 512), aspect_ratios: Sequence[float] = (0.5, 1, 2)
    ) -> Tensor:
        """See detectron2's."""
        return super().generate_cell_anchors(sizes, aspect_ratios).round()

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """Return the anchors of each map of `features`, from fine to coarse; the finest divides the padded image."""
        height, width = (cells * self.strides[0] for cells in features[0].shape[-2:])
        found = []
        for feature, cell in zip(features, self.cell_anchors):
            rows, columns = feature.shape[-2:]
            y, x = _starts(rows, height // rows, cell), _starts(columns, width // columns, cell)
            shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1).reshape(-1, 1, 4)
            found.append(Boxes((shifts + cell).reshape(-1, 4)))
        return found


def _starts(cells: int, stride: int, like: Tensor) -> Tensor:
    return torch.arange(cells, dtype=torch.float32, device=like.device) * stride

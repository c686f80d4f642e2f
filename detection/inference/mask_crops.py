"""Masks on a large image, each as the small parts that are not empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Left and upper end in the image, and (h, w) bool.
Crop = tuple[int, int, np.ndarray]


def crop_of(mask: np.ndarray, corner: tuple[int, int]) -> Crop:
    """Return the part of a mask (H, W) that is not empty; `corner` is where x and y of the mask begin in the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (*corner, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(bool)  # a copy: the whole mask goes
    return corner[0] + left, corner[1] + top, part


class MaskCrops:
    """Stands for (N, H, W) bool: a number gives one mask, whole; what else is an index gives a part.

    Attributes:
        crops: of each mask, those that it is the union of.
        size: (H, W).
    """

    def __init__(self, crops: Sequence[Sequence[Crop]], size: tuple[int, int]) -> None:
        self.crops = list(crops)
        self.size = size

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self), *self.size)

    def __len__(self) -> int:
        return len(self.crops)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            mask = np.zeros(self.size, bool)
            for left, top, part in self.crops[index]:
                mask[top : top + part.shape[0], left : left + part.shape[1]] |= part
            return mask
        rows = np.arange(len(self))[np.asarray(index) if not isinstance(index, slice) else index]
        return MaskCrops([self.crops[row] for row in rows], self.size)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(list(self), dtype or bool).reshape(self.shape)

    def numpy(self) -> MaskCrops:
        """Return itself: where a tensor would become an array, it is one already."""
        return self

    def encoded(self) -> Iterator[dict[str, Any]]:
        """Yield each mask as COCO's compressed RLE, its counts as text, without making it whole."""
        from pycocotools import mask as coco_mask

        height, width = self.size
        for crops in self.crops:
            left = min(crop[0] for crop in crops)
            right = max(crop[0] + crop[2].shape[1] for crop in crops)
            # RLE goes down the columns: the empty ones on both sides are a part of the first and the last run.
            columns = np.zeros((right - left, height), np.uint8)
            for x, top, part in crops:
                columns[x - left : x - left + part.shape[1], top : top + part.shape[0]] |= part.T
            flat = np.concatenate([[0], columns.ravel(), [0]])
            ends = np.flatnonzero(np.diff(flat)) + left * height
            runs = np.diff(np.concatenate([[0], ends, [height * width]]))
            runs = runs if runs[-1] or not len(ends) else runs[:-1]
            made = coco_mask.frPyObjects({"counts": runs.tolist(), "size": [height, width]}, height, width)
            yield {"size": [height, width], "counts": made["counts"].decode("ascii")}

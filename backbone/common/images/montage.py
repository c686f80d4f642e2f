"""Sheets of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def montage(pictures: Sequence[np.ndarray], *, columns: int, width: int = 360, gap: int = 6) -> np.ndarray:
    """Return the (H, W, 3) pictures in rows of `columns`, each scaled to `width` pixels, on white."""
    scaled = []
    for picture in pictures:
        height = max(1, round(picture.shape[0] * width / picture.shape[1]))
        scaled.append(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    rows = [scaled[start : start + columns] for start in range(0, len(scaled), columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    full_width = gap + columns * (width + gap)
    sheet = np.full((gap + sum(height + gap for height in heights), full_width, 3), 255, dtype=np.uint8)
    top = gap
    for row, height in zip(rows, heights):
        for column, picture in enumerate(row):
            left = gap + column * (width + gap)
            sheet[top : top + picture.shape[0], left : left + width] = picture
        top += height + gap
    return sheet

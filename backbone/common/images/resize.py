"""Resizing images, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 by Pillow's bilinear filter: smoothed where the image shrinks.

    Enlarged, 1 of 1,000 values is one level off Pillow's; the result may share memory with `image`.
    """
    if image.shape[1::-1] == (width, height):
        return image
    # Here, so that who only reads images (evaluation, data checks) does not wait for torch.
    import torch
    from torch.nn import functional as F

    if not image.flags.c_contiguous or not image.flags.writeable:
        image = image.copy()  # torch takes no negative strides, and warns of arrays that it may not write
    # OpenCV takes as long and is 0.2 levels off Pillow in the mean where the image grows; INTER_AREA, up to 5 where
    # it shrinks. In this order the result is channels_last, and comes back as (H, W, 3) without a copy.
    planes = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


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

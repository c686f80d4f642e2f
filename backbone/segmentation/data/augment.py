"""Random views of an image and its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ...common.draws import torch_draws_from
from ...common.images import resize_image
from ..evaluation import VOID


@dataclass(frozen=True)
class View:
    """How training images are drawn: scaled, cropped, mirrored.

    Attributes:
        size: side of the crop.
        scale: least and greatest factor.
        shorter_side: length that factor 1 stands for; 0 for the image's own.
        jitter: changes the colours of an image (C, H, W), uint8, by torch's draws; None for nothing.
        fill: pixel around an image that is smaller than the crop.
    """

    size: int
    scale: tuple[float, float]
    shorter_side: int
    flip: bool
    fill: Sequence[float]
    jitter: Callable[[Tensor], Tensor] | None = None


def training_view(
    image: np.ndarray, label: np.ndarray, random: np.random.Generator, view: View
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a view.

    Args:
        image: (H, W, C), uint8 or float32.
        label: (H, W) uint8.

    Returns:
        (size, size, C) as the image, and (size, size) uint8.
    """
    height, width = label.shape
    base = view.shorter_side / min(height, width) if view.shorter_side else 1.0
    factor = base * random.uniform(*view.scale)
    height, width = max(1, round(height * factor)), max(1, round(width * factor))
    top, left = (int(random.integers(max(0, length - view.size) + 1)) for length in (height, width))
    mirrored = view.flip and random.random() < 0.5
    window = np.s_[top : top + view.size, left : left + view.size]
    pixels = resize_image(image, width, height)[window]
    # Centres of pixels map to centres, as in the image.
    values = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)[window]
    if view.jitter is not None:
        planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        with torch_draws_from(random):
            pixels = view.jitter(planes).permute(1, 2, 0).numpy()
    if mirrored:
        pixels, values = pixels[:, ::-1], values[:, ::-1]
    return _filled(pixels, values, view)


def _filled(pixels: np.ndarray, values: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = values.shape
    canvas = np.empty((view.size, view.size, pixels.shape[2]), dtype=pixels.dtype)
    canvas[:] = np.round(view.fill) if pixels.dtype == np.uint8 else view.fill
    canvas[:rows, :columns] = pixels
    labels = np.full((view.size, view.size), VOID, dtype=np.uint8)
    labels[:rows, :columns] = values
    return canvas, labels

"""Images as callers have them: paths, PIL images, arrays and tensors, as the arrays that networks are given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from ..errors import DataError
from .read import read_image

# One image: a path, a PIL image, an array (H, W, C) or (H, W), or a tensor (C, H, W).
Given: TypeAlias = "str | Path | Image.Image | np.ndarray | torch.Tensor"
COLOURS = (1, 3, 4)  # channels of gray, colour, and colour with alpha


def is_several(images: Any) -> bool:
    """Whether the caller gave several images: a list, a tuple, or an array or tensor of four axes."""
    return isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4


def pixels_of(image: Given, *, channel_order: str, channels: int, bgr: bool = False) -> np.ndarray:
    """Return an image as (H, W, C), its channels in `channel_order`.

    Files and PIL images are turned upright by their EXIF orientation. Alpha is dropped, gray becomes colour.

    Args:
        image: arrays are (H, W, C) or (H, W), tensors (C, H, W). Colour is RGB, as PIL, torchvision and matplotlib have
            it. Values are uint8 in 0..255, or floats in 0..1.
        channel_order: of the result: "RGB" or "BGR"; "L" for gray; "bands", for which values are taken as they are.
        channels: of "bands": how many there must be.
        bgr: arrays and tensors are BGR, as those of cv2.imread are.

    Raises:
        DataError: no image, of another form, or with other values; a file that cannot be read.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, channel_order=channel_order, channels=channels)
    if isinstance(image, Image.Image):
        image, bgr = _of_pillow(image, keep=channel_order == "bands"), False
    elif isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        if image.ndim == 3:
            image = image.permute(1, 2, 0)
        image = (image.float() if image.dtype in (torch.bfloat16, torch.float16) else image).numpy()
    elif not isinstance(image, np.ndarray):
        raise DataError(f"an image is a path, a PIL image, an array or a tensor, not {type(image).__name__}")
    if channel_order == "bands":
        return _bands(image, channels)
    return _ordered(_bytes(image), channel_order, bgr)


def _of_pillow(image: Image.Image, *, keep: bool) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if keep:
        return np.asarray(image)
    if image.mode.startswith("I"):
        # 16 bits: Pillow would cut them off at 255, OpenCV takes the upper eight.
        return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def _bytes(image: np.ndarray) -> np.ndarray:
    """Return (H, W) or (H, W, C) as (H, W, C) uint8."""
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in COLOURS or not image.size:
        raise DataError(
            f"an image is an array (height, width, 3) or a tensor (3, height, width), not of shape {image.shape} "
            "(height, width, channels)"
        )
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f" or not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise DataError(
            f"an image has uint8 values in 0..255 or floats in 0..1, not {image.dtype} in "
            f"{image.min():.6g}..{image.max():.6g}; divide or convert it first"
        )
    return (image * 255).round().astype(np.uint8)


def _ordered(image: np.ndarray, channel_order: str, bgr: bool) -> np.ndarray:
    if channel_order == "L":
        gray = (
            image
            if image.shape[2] == 1
            else cv2.cvtColor(np.ascontiguousarray(image[:, :, :3]), cv2.COLOR_BGR2GRAY if bgr else cv2.COLOR_RGB2GRAY)
        )
        return gray.reshape(*image.shape[:2], 1)
    if image.shape[2] == 1:
        image = image.repeat(3, axis=2)
    image = image[:, :, :3]
    return np.ascontiguousarray(image if bgr == (channel_order == "BGR") else image[:, :, ::-1])


def _bands(image: np.ndarray, channels: int) -> np.ndarray:
    image = image[:, :, None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] != channels or not image.size or image.dtype.kind not in "buif":
        raise DataError(
            f"this network takes images of {channels} bands, (height, width, {channels}) for an array and "
            f"({channels}, height, width) for a tensor; this one has the shape {image.shape} and is {image.dtype}"
        )
    return np.ascontiguousarray(image if image.dtype == np.uint8 else image.astype(np.float32))

"""Images to measure a network on: an archive of arrays, a folder, or made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import DataError


def pictures(path: Path | None, *, number: int, side: int) -> tuple[Tensor, str]:
    """Return at most `number` images (N, 3, H, W), uint8, RGB, and words for where they come from.

    Args:
        path: an .npz with uint8 images (rows of 3072 as in CIFAR-10's batches, (N, 3, H, W) or (N, H, W, 3)), taken
            as they are; a folder of image files, at any depth, spread evenly over it and resized; or None for images
            made up, always the same.
        side: of the square images in the other cases.

    Raises:
        DataError: nothing there, or no images in it.
    """
    if number < 1:
        raise DataError(f"at least 1 image is needed, not {number}")
    if path is None:
        return made_up(number, side), f"{number} made-up images, no photographs (no data was given)"
    if path.is_dir():
        images = _from_folder(path, number, side)
        return images, f"{len(images)} images of {path.name}"
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of images")
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: images must be a folder of image files or an .npz archive")
    images, name = _from_archive(path)
    images = images[:number]
    return images, f"{len(images)} images, array {name} of {path.name}"


def made_up(number: int, side: int) -> Tensor:
    """Return smooth patches of colour with some noise on them, (number, 3, side, side) uint8, always the same."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(number, 3, 4, 4, generator=generator) * 255
    smooth = F.interpolate(patches, (side, side), mode="bilinear")
    noise = torch.randn(number, 3, side, side, generator=generator) * 12
    return (smooth + noise).clamp(0, 255).to(torch.uint8)


def _from_folder(folder: Path, number: int, side: int) -> Tensor:
    from ..common.images import find_images, read_image, resize_image
    from ..common.images.find import SUFFIXES

    files = find_images(folder)
    if not files:
        raise DataError(f"{folder}: no image files ({', '.join(SUFFIXES)}) in the folder")
    step = max(len(files) / number, 1)
    chosen = [files[int(index * step)] for index in range(min(number, len(files)))]
    images = [resize_image(read_image(file), side, side)[:, :, ::-1].copy() for file in chosen]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])


def _from_archive(path: Path) -> tuple[Tensor, str]:
    """Return the test images, or else the first array of images."""
    from ..common.reading import Arrays

    arrays, shapes = Arrays(path), {}
    for name in sorted(arrays, key=lambda name: "test" not in name):
        array = arrays[name]
        images = _as_images(array)
        if images is not None:
            return images, name
        shapes[name] = array.shape
    raise DataError(f"{path}: no array of uint8 images (N, 3072), (N, 3, H, W) or (N, H, W, 3); it has {shapes}")


def _as_images(array: Any) -> Tensor | None:
    if array.dtype != "uint8" or array.ndim not in (2, 4) or 0 in array.shape:
        return None
    images = torch.from_numpy(array)
    if array.ndim == 2:
        return images.view(-1, 3, 32, 32) if array.shape[1] == 3072 else None
    if array.shape[1] == 3:
        return images
    return images.permute(0, 3, 1, 2).contiguous() if array.shape[3] == 3 else None

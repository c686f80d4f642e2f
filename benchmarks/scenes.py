"""Batches on which whole detectors are timed: real COCO images with their boxes, or drawn ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from detection.data.mapper import Mapper, Resize
from detection.data.sets import build_set

from .loader import SET, read_records

CLASSES = 80
OBJECTS = 8  # in a drawn image, as many as an image of COCO has in the mean
LONGEST = 1333 / 800  # longer side at most, of a shorter side of 1


def coco_batches(data_root: Path, shorter: int, *, batch: int, batches: int) -> list[list[dict[str, Any]]]:
    """Return training samples of the first COCO training images, resized to a shorter side.

    Raises:
        DataError: see `loader.read_records`.
    """
    data, folder = read_records(data_root)
    images = build_set(data, name=SET, folder=folder, masks=False)
    resize = Resize((shorter,), round(shorter * LONGEST))
    mapper = Mapper(images, resize=resize, channel_order="BGR", flip="none")
    # The more images of one aspect, the less padding; the loader of either project groups them.
    upright = [images.size(index)[0] < images.size(index)[1] for index in range(len(images))]
    order = sorted(range(len(images)), key=lambda index: upright[index])
    samples = [_as_stock(mapper(index)) for index in order[: batch * batches]]
    return [samples[start : start + batch] for start in range(0, len(samples) - batch + 1, batch)] or [samples]


def _as_stock(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample with its image plane by plane in memory, as detectron2's mapper leaves it."""
    return {**sample, "image": sample["image"].contiguous()}


def drawn_batches(size: tuple[int, int], *, batch: int, batches: int) -> list[list[dict[str, Any]]]:
    """Return training samples of smooth noise with rectangles as objects."""
    generator = torch.Generator().manual_seed(0)
    samples = [drawn_sample(size, generator) for _ in range(batch * batches)]
    return [samples[start : start + batch] for start in range(0, len(samples), batch)]


def drawn_sample(size: tuple[int, int], generator: torch.Generator) -> dict[str, Any]:
    """Return one training sample: an image (3, H, W) uint8 of `size`, and its `instances`."""
    height, width = size
    coarse = torch.rand(1, 3, 5, 7, generator=generator) * 255
    image = torch.nn.functional.interpolate(coarse, size, mode="bilinear")[0]
    boxes = _boxes(size, generator)
    classes = torch.randint(CLASSES, (OBJECTS,), generator=generator)
    for (x0, y0, x1, y1), colour in zip(boxes.int().tolist(), torch.rand(OBJECTS, 3, 1, 1, generator=generator) * 255):
        image[:, y0:y1, x0:x1] = colour
    instances = Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)
    return {"image": image.to(torch.uint8), "instances": instances, "height": height, "width": width}


def _boxes(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw boxes (OBJECTS, 4), each side a tenth to a half of the image's."""
    limits = torch.tensor([size[1], size[0]], dtype=torch.float32)
    extent = (0.1 + 0.4 * torch.rand(OBJECTS, 2, generator=generator)) * limits
    corner = torch.rand(OBJECTS, 2, generator=generator) * (limits - extent)
    return torch.cat([corner, corner + extent], dim=1)

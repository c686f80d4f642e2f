"""Sets of images with labels: read from label images, or drawn from COCO's annotations."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import DataError, RunError
from ...common.images import read_image
from ..evaluation import VOID
from .labels import read_label


class SegmentationSet(ABC):
    """Images with the class of every pixel.

    Attributes:
        name: for people.
        classes: names by label.
        has_truth: whether there are labels; test sets whose labels stay with a server have none.
    """

    def __init__(self, name: str, classes: Sequence[str], records: Sequence[Any], *, has_truth: bool = True) -> None:
        self.name = name
        self.classes = list(classes)
        self.records = list(records)
        self.has_truth = has_truth

    def __len__(self) -> int:
        return len(self.records)

    def first(self, number: int) -> SegmentationSet:
        """Return the set of the first images alone."""
        part = copy.copy(self)
        part.records = self.records[:number]
        return part

    @abstractmethod
    def path(self, index: int) -> Path:
        """Return the file of an image."""

    @abstractmethod
    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an image, (H, W, 3) RGB uint8, and its labels, (H, W) uint8, None without truth.

        Raises:
            DataError: a file is missing or broken, or the two do not fit.
        """


class ImageFiles(SegmentationSet):
    """Records are (image file, label file or None)."""

    def path(self, index: int) -> Path:
        return self.records[index][0]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        image_file, label_file = self.records[index]
        if label_file is None:
            return read_image(image_file, channel_order="RGB"), None
        label = read_label(label_file, self.classes)
        return _read_sized(image_file, label.shape[1::-1], str(label_file)), label


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file.

    Attributes:
        parts: label and "segmentation" (polygons or run lengths) of its annotations.
    """

    path: Path
    width: int
    height: int
    parts: tuple[tuple[int, Any], ...]


class CocoImages(SegmentationSet):
    """Records are CocoImage; the labels are drawn when they are read."""

    def path(self, index: int) -> Path:
        return self.records[index].path

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        record = self.records[index]
        return _read_sized(record.path, (record.width, record.height), "its JSON record"), draw(record)


def draw(record: CocoImage) -> np.ndarray:
    """Return the labels of an image, (H, W) uint8: 0 where nothing is annotated, VOID where objects overlap.

    torchvision's reference training makes its labels so (references/segmentation/coco_utils.py).

    Raises:
        DataError: a segmentation that is neither polygons nor run lengths.
        RunError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coco_mask
    except ImportError:
        raise RunError("labels from COCO annotations need pycocotools; pip install pycocotools") from None
    label = np.zeros((record.height, record.width), dtype=np.uint8)
    covered = np.zeros(label.shape, dtype=bool)
    for value, segmentation in record.parts:
        try:
            runs = segmentation
            if isinstance(segmentation, list):
                runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, record.height, record.width))
            elif isinstance(segmentation["counts"], list):
                runs = coco_mask.frPyObjects(segmentation, record.height, record.width)
            inside = coco_mask.decode(runs).astype(bool)
            label[inside] = value
            label[inside & covered] = VOID
        except Exception as error:  # whatever pycocotools makes of data of another form
            raise DataError(f"{record.path}: a segmentation of this image cannot be drawn: {error}") from None
        covered |= inside
    return label


def _read_sized(path: Path, size: tuple[int, int], source: str) -> np.ndarray:
    """Read an image as RGB; as stored, without its EXIF orientation, if that alone has the size of the labels."""
    image = read_image(path, channel_order="RGB")
    if image.shape[1::-1] != tuple(size):
        try:
            image = read_image(path, size=size, channel_order="RGB")
        except DataError:
            found = "x".join(map(str, image.shape[1::-1]))
            raise DataError(
                f"{path}: the image is {found} pixels, {source} says {size[0]}x{size[1]}; they must be equal"
            ) from None
    return image

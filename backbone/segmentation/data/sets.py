"""Sets of images with labels: read from label images, or drawn from COCO's annotations."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...common.errors import DataError, RunError
from ...common.images import read_image
from ..evaluation import VOID
from .form import LabelForm
from .labels import read_label


class SegmentationSet(ABC):
    """Images with the class of every pixel.

    Attributes:
        name: for people.
        classes: names by label.
        own_classes: the same, before `renumbered`.
        records: what is known of each image, as the kind of set has it.
        pixels: (classes,) of each class, once `check_set` has counted them, else None.
        reading: keywords of `read_image` that say what the channels of the images are.
        has_truth: whether there are labels; test sets whose labels stay with a server have none.
        held_out: of a set that was divided from the training set, the names of all images held out; it may have fewer.
    """

    def __init__(self, name: str, classes: Sequence[str], records: Sequence[Any], *, has_truth: bool = True) -> None:
        self.name = name
        self.classes = self.own_classes = list(classes)
        self.records = list(records)
        self.has_truth = has_truth
        self.held_out: Sequence[str] = ()
        self.pixels: np.ndarray | None = None
        self.reading: dict[str, Any] = {"channel_order": "RGB"}
        self._numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.records)

    def first(self, number: int) -> SegmentationSet:
        """Return the set of the first images alone."""
        return self.take(range(min(number, len(self))))

    def take(self, indices: Sequence[int]) -> SegmentationSet:
        """Return the set of some images alone."""
        part = copy.copy(self)
        part.records = [self.records[index] for index in indices]
        return part

    def renumbered(self, classes: Sequence[str], owner: str) -> SegmentationSet:
        """Return the set with the labels of `classes`, among which are all of its own.

        Args:
            owner: in words, what has these classes.

        Raises:
            DataError: it has a class that is not among them.
        """
        if list(classes) == self.classes:
            return self
        strange = [name for name in self.classes if name not in classes]
        if strange:
            raise DataError(f"{self.name}: has the class {strange[0]!r}, which {owner} does not have")
        other = copy.copy(self)
        other.classes, other._numbers = list(classes), np.full(256, VOID, dtype=np.uint8)
        other._numbers[: len(self.own_classes)] = [other.classes.index(name) for name in self.own_classes]
        return other

    def names(self) -> list[str]:
        """Return what files that are made of each image are called: its stem, or where two share that, its path."""
        paths = [self.path(index) for index in range(len(self))]
        stems = [path.stem for path in paths]
        if len(set(stems)) == len(stems):
            return stems
        common = Path(os.path.commonpath([path.parent for path in paths]))
        below = [path.relative_to(common) for path in paths]
        names = [str(path.with_suffix("")) for path in below]
        return names if len(set(names)) == len(names) else [str(path) for path in below]

    def label(self, index: int) -> np.ndarray | None:
        """Return the labels of an image, (H, W) uint8, None without truth.

        Raises:
            DataError: they are missing or broken, or hold a number that is neither a class nor VOID.
        """
        label = self._own_label(index)
        return label if label is None or self._numbers is None else self._numbers[label]

    def look(self, index: int) -> tuple[np.ndarray, tuple[int, int] | None]:
        """Return the pixels of each label in an image, (256,), and its labels' (width, height), None without truth.

        Raises:
            DataError: as in `label`.
        """
        label = self.label(index)
        if label is None:
            return np.zeros(256, dtype=np.int64), None
        return np.bincount(label.ravel(), minlength=256), label.shape[1::-1]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an image, (H, W, C), and its labels, as `image` and `label` do.

        Raises:
            DataError: a file is missing or broken, or the two do not fit.
        """
        label = self.label(index)
        return self.image(index, label), label

    def image(self, index: int, label: np.ndarray | None) -> np.ndarray:
        """Return an image that goes with a label: (H, W, 3) RGB uint8, or as `reading` says.

        Raises:
            DataError: it is missing or broken, or of another size than the label.
        """
        if label is None:
            return read_image(self.path(index), **self.reading)
        return _read_sized(self.path(index), label.shape[1::-1], self.source(index), self.reading)

    @abstractmethod
    def path(self, index: int) -> Path:
        """Return the file of an image."""

    @abstractmethod
    def source(self, index: int) -> str:
        """Return in words where the labels of an image come from."""

    @abstractmethod
    def _own_label(self, index: int) -> np.ndarray | None:
        """Return the labels as the set numbers them; see `label`."""


class LabelledFiles(SegmentationSet):
    """Records are (image file, label file or None).

    Attributes:
        unused: label files that belong to no image.

    Args:
        form: what the numbers or colours in the label files stand for.
    """

    def __init__(
        self, name: str, form: LabelForm, records: Sequence[tuple[Path, Path | None]], *, has_truth: bool = True
    ) -> None:
        super().__init__(name, form.classes, records, has_truth=has_truth)
        self.form = form
        self.unused: list[Path] = []

    def path(self, index: int) -> Path:
        return self.records[index][0]

    def source(self, index: int) -> str:
        return str(self.records[index][1])

    def _own_label(self, index: int) -> np.ndarray | None:
        file = self.records[index][1]
        return None if file is None else read_label(file, self.form)


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

    def source(self, index: int) -> str:
        return "its JSON record"

    def look(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """See `SegmentationSet.look`; overlaps count for each object, and nothing is drawn, which would take longer."""
        record, pixels = self.records[index], np.zeros(256, dtype=np.int64)
        for value, runs in _runs(record):
            pixels[value] += int(coco_mask().area(runs))
        pixels[0] += max(0, record.width * record.height - pixels.sum())
        renumbered = pixels if self._numbers is None else np.bincount(self._numbers, weights=pixels, minlength=256)
        return renumbered.astype(np.int64), (record.width, record.height)

    def _own_label(self, index: int) -> np.ndarray:
        return draw(self.records[index])


def coco_mask() -> ModuleType:
    """Return pycocotools.mask.

    Raises:
        RunError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise RunError("labels from COCO annotations need pycocotools; pip install pycocotools") from None
    return mask


def draw(record: CocoImage) -> np.ndarray:
    """Return the labels of an image, (H, W) uint8: 0 where nothing is annotated, VOID where objects overlap.

    torchvision's reference training makes its labels so (references/segmentation/coco_utils.py).

    Raises:
        DataError: a segmentation that is neither polygons nor run lengths.
        RunError: pycocotools is not installed.
    """
    label = np.zeros((record.height, record.width), dtype=np.uint8)
    covered = np.zeros(label.shape, dtype=bool)
    for value, runs in _runs(record):
        inside = coco_mask().decode(runs).astype(bool)
        label[inside] = value
        label[inside & covered] = VOID
        covered |= inside
    return label


def _runs(record: CocoImage) -> Iterator[tuple[int, Any]]:
    """Yield label and run lengths of each part of an image; see `draw` for what is raised."""
    masks = coco_mask()
    for value, segmentation in record.parts:
        try:
            runs = segmentation
            if isinstance(segmentation, list):
                runs = masks.merge(masks.frPyObjects(segmentation, record.height, record.width))
            elif isinstance(segmentation["counts"], list):
                runs = masks.frPyObjects(segmentation, record.height, record.width)
            if list(runs["size"]) != [record.height, record.width]:
                raise ValueError(f"it is made for {runs['size']} rows and columns")
            masks.area(runs)
        except Exception as error:  # whatever pycocotools makes of data of another form
            raise DataError(f"{record.path}: a segmentation of this image cannot be drawn: {error}") from None
        yield value, runs


def _read_sized(path: Path, size: tuple[int, int], source: str, reading: dict[str, Any]) -> np.ndarray:
    """Read an image; as stored, without its EXIF orientation, if that alone has the size of the labels."""
    image = read_image(path, **reading)
    if image.shape[1::-1] != tuple(size):
        try:
            image = read_image(path, size=size, **reading)
        except DataError:
            found = "x".join(map(str, image.shape[1::-1]))
            raise DataError(
                f"{path}: the image is {found} pixels, {source} says {size[0]}x{size[1]}; they must be equal"
            ) from None
    return image

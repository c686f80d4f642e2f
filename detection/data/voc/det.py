"""Where the files of ImageNet DET lie, and its validation set in two halves. Annotations have PASCAL VOC's form."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from backbone.common.errors import DataError

from .det_classes import DET_CLASSES, DET_WNIDS
from .layout import VocSplit

LISTS = "ImageSets/DET"
# The folder of the official archives may stand between the data root and Data, Annotations and ImageSets.
ARCHIVE = "ILSVRC"
SPLITS = ("train", "val", "val1", "val2", "test")
HALVES = ("val1", "val2")
# Folders of training images that show none of the classes, and have no annotations.
NEGATIVES = "train_extra"


@dataclass(frozen=True)
class DetSplit(VocSplit):
    """One split of ImageNet DET, "train", "val", "test" or one of HALVES. `folder` holds Data, Annotations, ImageSets.

    Images of the folders ILSVRC2013_train_extra* are left out: they have no object to learn from.
    """

    title: ClassVar[str] = "ImageNet DET"
    suffix: ClassVar[str] = ".JPEG"
    classes: ClassVar[tuple[str, ...]] = DET_CLASSES
    written: ClassVar[tuple[str, ...]] = DET_WNIDS
    first_pixel: ClassVar[int] = 0
    nested: ClassVar[bool] = True

    @property
    def part(self) -> str:
        """The folder below Data/DET and Annotations/DET."""
        return "val" if self.split in HALVES else self.split

    @property
    def is_computed(self) -> bool:
        """Whether the split is a half of val that no list names."""
        return self.split in HALVES and not os.path.lexists(self._own_list)

    @property
    def list_file(self) -> Path:
        return self.folder / LISTS / "val.txt" if self.is_computed else self._own_list

    @property
    def images(self) -> Path:
        return self.folder / "Data" / "DET" / self.part

    @property
    def annotations(self) -> Path:
        return self.folder / "Annotations" / "DET" / self.part

    @property
    def _own_list(self) -> Path:
        return self.folder / LISTS / f"{self.split}.txt"

    def leaves_out(self, name: str) -> bool:
        return self.split == "train" and NEGATIVES in name.partition("/")[0]

    def rows_of(self, image: np.ndarray, labels: np.ndarray, images: int) -> np.ndarray | None:
        if not self.is_computed:
            return None
        first = first_half(image, labels, images)
        return np.flatnonzero(first if self.split == HALVES[0] else ~first)


def find_det_split(root: Path, split: str) -> DetSplit:
    """Return a split under a data root: ROOT/ILSVRC, or ROOT itself where it holds ImageSets/DET.

    Raises:
        DataError: there is no such folder, no list of the split, or a list of one half of val alone.
    """
    folder = next((place for place in (root / ARCHIVE, root) if (place / LISTS).is_dir()), None)
    if folder is None:
        raise DataError(
            f"{root / ARCHIVE / LISTS} does not exist, nor {root / LISTS}; --data-root must name the folder that holds "
            f"{ARCHIVE}/, with Data/DET, Annotations/DET and {LISTS} below it"
        )
    found = DetSplit(folder, split, annotated=split != "test")
    if not found.list_file.is_file():
        raise DataError(f"{found.list_file} does not exist: it lists the images; unpack the archive again")
    there = [half for half in HALVES if os.path.lexists(folder / LISTS / f"{half}.txt")]
    if split in HALVES and len(there) == 1:
        raise DataError(
            f"{folder / LISTS}: holds {there[0]}.txt without the other half of val; put both lists there, or neither: "
            "then val is split by this project's rule"
        )
    return found


def first_half(image: np.ndarray, labels: np.ndarray, images: int) -> np.ndarray:
    """Return which images belong to the first half of a split, so that both halves have like numbers of each class.

    R-CNN (Girshick et al., arXiv 1311.2524, Sec. 4.2) splits val so, by a search with random numbers. The rule here has
    none: images go one by one, those of the rarest classes first, the others in the order of the list. Each goes to the
    half that has fewer objects of its classes: differences count relative to the number of objects of a class, and
    every object of the image counts. Where that decides nothing, as without objects, the smaller half gets the image.

    Args:
        image, labels: (M,) of the objects, positions of their images and classes.

    Returns:
        (images,) bool.
    """
    first = np.zeros(images, dtype=bool)
    if not images:
        return first
    total = np.bincount(labels, minlength=int(labels.max(initial=0)) + 1)
    rarest = np.full(images, len(labels) + 1)
    np.minimum.at(rarest, image, total[labels])
    order = np.argsort(image, kind="stable")
    starts = np.searchsorted(image[order], np.arange(images + 1))
    surplus = np.zeros(len(total))
    size = 0
    for row in np.argsort(rarest, kind="stable").tolist():
        own = labels[order[starts[row] : starts[row + 1]]]
        lean = float((surplus[own] / total[own] ** 2).sum()) or float(size)
        first[row] = lean <= 0
        step = 1 if first[row] else -1
        np.add.at(surplus, own, step)
        size += step
    return first

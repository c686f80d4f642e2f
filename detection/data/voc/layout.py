"""Where the files of a VOC set lie: ImageSets/Main, Annotations and JPEGImages of a year."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from backbone.common.class_names import VOC_CLASSES
from backbone.common.errors import DataError
from backbone.common.reading import read_lines
from backbone.common.text import nearest

IMAGES, ANNOTATIONS, SPLITS = "JPEGImages", "Annotations", "ImageSets/Main"
# The development kit's folder may stand between the data root and the years.
DEVKIT = "VOCdevkit"


@dataclass(frozen=True)
class VocSplit:
    """One split of one year.

    Attributes:
        folder: of the year; holds JPEGImages, Annotations and ImageSets.
        split: "trainval", "test", ...: the name of a file in ImageSets/Main.
        annotated: ground truth is expected; False for the test sets of the evaluation server.
        title: of the data set.
        suffix: of the image files.
        classes: names of the classes, in their order; written: as the annotation files have them.
        first_pixel: what the annotation files count an image's first pixel as.
        nested: ids may name folders below `images`.
    """

    folder: Path
    split: str
    annotated: bool = True
    title: ClassVar[str] = "PASCAL VOC"
    suffix: ClassVar[str] = ".jpg"
    classes: ClassVar[tuple[str, ...]] = VOC_CLASSES
    written: ClassVar[tuple[str, ...]] = VOC_CLASSES
    first_pixel: ClassVar[int] = 1
    nested: ClassVar[bool] = False

    @property
    def list_file(self) -> Path:
        """The file that lists the ids of the images, one a line."""
        return self.folder / SPLITS / f"{self.split}.txt"

    @property
    def images(self) -> Path:
        return self.folder / IMAGES

    @property
    def annotations(self) -> Path:
        return self.folder / ANNOTATIONS

    @property
    def year(self) -> int | None:
        """The year that the folder is named after, or None."""
        found = re.search(r"(20\d\d)$", self.folder.name)
        return int(found[1]) if found else None

    def leaves_out(self, name: str) -> bool:
        """Whether an image of the list is none of the split."""
        return False

    def rows_of(self, image: np.ndarray, labels: np.ndarray, images: int) -> np.ndarray | None:
        """Return which of the listed images the split consists of, by their objects; None for all.

        Args:
            image, labels: (M,) of the objects, positions of their images and classes.
        """
        return None


def find_split(root: Path, year: int, split: str, *, annotated: bool = True) -> VocSplit:
    """Return a split under a data root: ROOT/VOCdevkit/VOC2007, ROOT/VOC2007, or ROOT itself where it is VOC2007.

    Raises:
        DataError: there is no such folder, or no such split in it.
    """
    name = f"VOC{year}"
    candidates = [root / DEVKIT / name, root / name, *([root] if root.name == name else [])]
    for folder in candidates:
        if (folder / SPLITS).is_dir():
            return _with_list(VocSplit(folder, split, annotated))
    there = next((folder for folder in candidates if folder.is_dir()), None)
    if there is not None:
        raise DataError(f"{there}: no folder {SPLITS}, which lists the images of each split; unpack the download again")
    raise DataError(
        f"{candidates[0]} does not exist, nor {candidates[1]}; --data-root must name the folder that holds "
        f"{DEVKIT}/{name} or {name}"
    )


def split_of_folder(folder: Path, split: str) -> VocSplit:
    """Return a split of a year's folder, such as VOCdevkit/VOC2012; it is annotated where Annotations is there.

    Raises:
        DataError: the folder does not exist, is no VOC year, or has no such split.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; give a year's folder, such as {DEVKIT}/VOC2012")
    if not (folder / SPLITS).is_dir():
        years = sorted(path.name for path in folder.glob("VOC20*") if path.is_dir())
        years = years or sorted(path.name for path in folder.glob(f"{DEVKIT}/VOC20*"))
        hint = f"; it holds {', '.join(years)}: give one of them" if years else ""
        raise DataError(f"{folder}: no folder {SPLITS}, so it is no year of PASCAL VOC{hint}")
    return _with_list(VocSplit(folder, split, _is_annotated(folder, split)))


def _is_annotated(folder: Path, split: str) -> bool:
    """Whether any image of the split has an annotation; a set with some is one with others missing."""
    listed = VocSplit(folder, split)
    if not listed.list_file.is_file() or not listed.annotations.is_dir():
        return False
    # Path.is_file raises on names that are too long for a file.
    return any(os.path.isfile(listed.annotations / f"{name}.xml") for name in read_ids(listed))


def _with_list(split: VocSplit) -> VocSplit:
    if not split.list_file.is_file():
        # Beside the splits lie lists of single classes, such as cat_trainval.txt.
        known = sorted(path.stem for path in split.list_file.parent.glob("*.txt") if "_" not in path.stem)
        raise DataError(f"{split.list_file} does not exist: no split {split.split!r}{nearest(split.split, known)}")
    return split


def read_ids(split: VocSplit) -> list[str]:
    """Return the ids that the split's list has, in its order. A second column (lists of a class) is left out.

    Raises:
        DataError: the list cannot be read, is empty, or has an id twice or one that leads out of the folder.
    """
    path = split.list_file
    ids: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        name = line.split()[0]
        parts = name.split("/")
        if (len(parts) > 1 and not split.nested) or "\\" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise DataError(f"{path}, line {number}: {name!r} is no image id; ids are file names without their ending")
        if name in ids:
            raise DataError(f"{path}, line {number}: {name} stands in line {ids[name]} too; list every image once")
        ids[name] = number
    ids = {name: number for name, number in ids.items() if not split.leaves_out(name)}
    if not ids:
        raise DataError(f"{path}: lists no image; fetch it again")
    return list(ids)

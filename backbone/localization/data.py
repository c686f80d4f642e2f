"""ImageNet CLS-LOC in the layout of the archives: images of one class each, with boxes around its objects."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..classification.data.folders import WNID
from ..classification.data.sets import ImageFiles
from ..common.errors import DataError
from ..common.images import list_folders, list_images
from ..common.reading import read_lines
from ..common.text import count
from ..common.voc_annotation import AnnotationFault, read_annotation
from ..engine.roots import data_root

IMAGES, ANNOTATIONS, CLASSES = "Data/CLS-LOC", "Annotations/CLS-LOC", "LOC_synset_mapping.txt"
ARCHIVE = "ILSVRC"
SOLUTION = "LOC_{split}_solution.csv"
SUFFIX = ".JPEG"
# Images without annotations, for the evaluation server.
SERVER_SPLIT = "test"
Box = tuple[float, float, float, float]


class BoxedImages(ImageFiles):
    """Images of one class each, and the boxes of its objects.

    Attributes:
        boxes: (M, 4) float32 x0, y0, x1, y1, edges in absolute pixels of the upright image.
        starts: (N + 1,); the boxes of image i are starts[i]:starts[i + 1].
        has_truth: False of a set without annotations, whose labels say nothing.
    """

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        labels: np.ndarray,
        root: Path,
        files: Sequence[str],
        boxes: Sequence[Sequence[Box]],
        *,
        has_truth: bool = True,
    ) -> None:
        super().__init__(name, classes, labels, root, files)
        self.starts = np.cumsum([0, *map(len, boxes)])
        self.boxes = np.array([box for own in boxes for box in own], dtype=np.float32).reshape(-1, 4)
        self.has_truth = has_truth

    def boxes_of(self, index: int) -> np.ndarray:
        """Return the (M, 4) boxes of an image."""
        return self.boxes[self.starts[index] : self.starts[index + 1]]

    def first(self, number: int) -> BoxedImages:
        own = [self.boxes_of(index).tolist() for index in range(min(number, len(self)))]
        return BoxedImages(
            self.name, self.classes, self.labels[:number], self.root, self.files[:number], own, has_truth=self.has_truth
        )


def open_sets(config: Any, *, training: bool) -> tuple[BoxedImages | None, BoxedImages]:
    """Return the training set (None for an evaluation) and the validation set.

    Raises:
        DataError: a folder or file of the layout is missing, or malformed, or a set has no image with a box.
    """
    data = config.DATA
    root = find_root(data_root(config))
    classes = read_classes(root)
    train = open_boxed(root, data.TRAIN, classes) if training else None
    test = open_boxed(root, data.VAL, classes)
    if train is not None and not train.has_truth:
        raise DataError(f"DATA.TRAIN {data.TRAIN!r}: this set has no boxes to learn from")
    if train is not None and data.TRAIN_IMAGES:
        train = train.first(data.TRAIN_IMAGES)
    return train, test.first(data.VAL_IMAGES) if data.VAL_IMAGES else test


def find_root(root: Path) -> Path:
    """Return the folder that holds Data/CLS-LOC: ROOT/ILSVRC, or ROOT itself."""
    for folder in (root / ARCHIVE, root):
        if (folder / IMAGES).is_dir():
            return folder
    raise DataError(
        f"{root / ARCHIVE / IMAGES} does not exist, nor {root / IMAGES}; --data-root must name the folder that holds "
        f"{ARCHIVE}/, with {IMAGES} and {ANNOTATIONS} below it"
    )


def _beside(root: Path, name: str) -> Path | None:
    """Return a file that the archive has beside ILSVRC/, or in it; None without."""
    return next((path for path in (root / name, root.parent / name) if os.path.isfile(path)), None)


def read_classes(root: Path) -> list[str]:
    """Return the wnids of the classes: those of LOC_synset_mapping.txt, else the folders of Data/CLS-LOC/train."""
    path = _beside(root, CLASSES)
    if path is None:
        folder = root / IMAGES / "train"
        found = sorted(list_folders(folder)) if folder.is_dir() else []
        if not found:
            raise DataError(
                f"{root.parent / CLASSES} does not exist, nor a folder a class in {folder}; one names the classes"
            )
        return found
    classes = [line.split()[0] for line in read_lines(path) if line]
    if not classes or len(set(classes)) < len(classes) or not all(map(WNID.fullmatch, classes)):
        raise DataError(f"{path}: must hold different wnids, one at the start of each line; fetch it again")
    return classes


def open_boxed(root: Path, split: str, classes: Sequence[str]) -> BoxedImages:
    """Read a split: its images that have boxes, by LOC_<split>_solution.csv or else by Annotations/CLS-LOC/<split>.

    Raises:
        DataError: see `open_sets`.
    """
    folder = root / IMAGES / split
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; unpack the images of {split!r} again")
    name = f"imagenet loc {split}"
    if split == SERVER_SPLIT:
        files = [f"{split}/{file}" for file in list_images(folder)]
        if not files:
            raise DataError(f"{folder}: holds no images")
        none = np.zeros(len(files), dtype=np.int64)
        return BoxedImages(name, classes, none, root / IMAGES, files, [[] for _ in files], has_truth=False)
    table = _beside(root, SOLUTION.format(split=split))
    if table is None and not (root / ANNOTATIONS / split).is_dir():
        raise DataError(
            f"{root / ANNOTATIONS / split} does not exist, nor {root.parent / SOLUTION.format(split=split)}; one of "
            "them says where the objects are"
        )
    index = {wnid: place for place, wnid in enumerate(classes)}
    there = _images_in(folder)
    files, labels, boxes = [], [], []
    for stem, wnids, own, source in _rows_of_table(table) if table else _annotations(root / ANNOTATIONS / split):
        if wnids[0] not in index:
            raise DataError(
                f"{source}: {stem} is of {wnids[0]!r}, which is no class of {CLASSES} or of the training folders"
            )
        # An image has one class; boxes of another one are none of its objects.
        own = [box for wnid, box in zip(wnids, own) if wnid == wnids[0]]
        bad = next((box for box in own if not _is_box(box)), None)
        if bad is not None:
            raise DataError(
                f"{source}: {stem} has the box {list(bad)}; xmax and ymax are at least xmin and ymin, and finite"
            )
        file = there.get(stem)
        if file is None:
            raise DataError(f"{folder}: no image {stem}{SUFFIX}, which {source} has; unpack the images again")
        files.append(f"{split}/{file}")
        labels.append(index[wnids[0]])
        # Files count pixels from 0 and include the last one.
        boxes.append([(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in own])
    if not files:
        raise DataError(f"{table or root / ANNOTATIONS / split}: names no image with a box")
    found = BoxedImages(name, classes, np.array(labels), root / IMAGES, files, boxes)
    without = len(there) - len(files)
    found.note = f"{count(without, 'image')} without a box left out" if without else ""
    return found


def _is_box(box: Box) -> bool:
    return all(map(math.isfinite, box)) and box[2] >= box[0] and box[3] >= box[1]


def _images_in(folder: Path) -> dict[str, str]:
    """Return {name without ending: path below `folder`} of the images in it, and in its folders of classes."""
    files = [
        *list_images(folder),
        *(f"{inner}/{name}" for inner in list_folders(folder) for name in list_images(folder / inner)),
    ]
    return {Path(file).stem: file for file in files}


def _rows_of_table(path: Path) -> Iterator[tuple[str, list[str], list[Box], str]]:
    """Yield image, wnids, boxes and place of each row of ImageId,PredictionString: a wnid and four corners a box."""
    for number, line in enumerate(read_lines(path), 1):
        if not line or line.startswith("ImageId"):
            continue
        source = f"{path}, line {number}"
        try:
            stem, text = next(csv.reader([line]))
            words = text.split()
            wnids, corners = words[::5], [float(word) for place, word in enumerate(words) if place % 5]
            if not words or len(words) % 5:
                raise ValueError
        except (ValueError, csv.Error):
            raise DataError(f"{source}: {line[:80]!r}; a line is ImageId,wnid xmin ymin xmax ymax ...") from None
        yield stem, wnids, [tuple(corners[start : start + 4]) for start in range(0, len(corners), 4)], source


def _annotations(folder: Path) -> Iterator[tuple[str, list[str], list[Box], str]]:
    """Yield the same of the files in `folder` and in its folders of classes; those without objects are left out."""
    for path in sorted([*folder.glob("*.xml"), *folder.glob("*/*.xml")]):
        try:
            found = read_annotation(path)
        except AnnotationFault as fault:
            raise DataError(f"{fault}; unpack the annotations again") from None
        if found.names:
            yield path.stem, found.names, found.boxes, str(path)

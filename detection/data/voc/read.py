"""A VOC split in memory."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbone.common.class_names import VOC_CLASSES
from backbone.common.errors import DataError
from backbone.common.text import nearest

from .annotation import Annotation, AnnotationFault, read_annotation
from .faults import Faults
from .layout import VocSplit, read_ids

LABELS = {name: label for label, name in enumerate(VOC_CLASSES)}


@dataclass(frozen=True, eq=False)
class VocObjects:
    """The images of a split and their objects, as the files have them.

    Attributes:
        ids: of the N images, as the list of the split has them.
        sizes: (N, 2) int32, width and height in pixels; zeros where there is no annotation to say.
        image: (M,) int64, the position of each object's image, rising.
        labels: (M,) int64, positions in VOC_CLASSES.
        boxes: (M, 4) float64 xmin, ymin, xmax, ymax: pixels counted from 1, the last one included.
        difficult: (M,) bool.
    """

    split: VocSplit
    ids: list[str]
    sizes: np.ndarray
    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    difficult: np.ndarray


def read_split(split: VocSplit, *, need_images: bool = True, refuse_boxes: bool = False) -> VocObjects:
    """Read the list of a split and its annotations, one small file an image.

    Args:
        need_images: the image files must be there.
        refuse_boxes: stop on boxes that are empty, not finite or outside their image; otherwise they are kept.

    Raises:
        DataError: something is missing or malformed; one line names the first fault and how many more there are.
    """
    ids = read_ids(split)
    faults = Faults()
    if need_images:
        _check_images(split, ids, faults)
    annotations = _read_all(split, ids, faults) if split.annotated else {}
    faults.raise_first(split.list_file, boxes=refuse_boxes)
    columns = [(row, found) for row, name in enumerate(ids) if (found := annotations.get(name)) is not None]
    sizes = np.zeros((len(ids), 2), dtype=np.int32)
    for row, found in columns:
        sizes[row] = found.size
    return VocObjects(
        split=split,
        ids=ids,
        sizes=sizes,
        image=np.array([row for row, found in columns for _ in found.names], dtype=np.int64),
        labels=np.array([LABELS[name] for _, found in columns for name in found.names], dtype=np.int64),
        boxes=np.array([box for _, found in columns for box in found.boxes], dtype=np.float64).reshape(-1, 4),
        difficult=np.array([flag for _, found in columns for flag in found.difficult], dtype=bool),
    )


def _check_images(split: VocSplit, ids: list[str], faults: Faults) -> None:
    if not split.images.is_dir():
        raise DataError(f"{split.images} does not exist; unpack the images of {split.folder.name} again")
    # One look at the folder is faster than thousands at files.
    with os.scandir(split.images) as entries:
        there = {entry.name for entry in entries if entry.is_file()}
    for name in ids:
        if f"{name}.jpg" not in there:
            faults.add("missing-image", f"{split.images / name}.jpg does not exist")


def _read_all(split: VocSplit, ids: list[str], faults: Faults) -> dict[str, Annotation]:
    if not split.annotations.is_dir():
        raise DataError(f"{split.annotations} does not exist; unpack the annotations of {split.folder.name} again")
    folder = f"{split.annotations}{os.sep}"
    annotations = {}
    for name in ids:
        path = f"{folder}{name}.xml"
        try:
            found = read_annotation(path)
        except AnnotationFault as fault:
            faults.add(fault.kind, str(fault))
            continue
        _check_objects(found, path, faults)
        annotations[name] = found
    return annotations


def _check_objects(annotation: Annotation, path: str, faults: Faults) -> None:
    width, height = annotation.size
    for index, (name, box) in enumerate(zip(annotation.names, annotation.boxes), 1):
        if name not in LABELS:
            faults.add("unknown-class", f"{path}: object {index} is a {name!r}{nearest(name, VOC_CLASSES)}")
        left, top, right, bottom = box
        kind = None
        if not all(map(math.isfinite, box)):
            kind = "nan-box"
        elif right < left or bottom < top:
            kind = "empty-box"
        elif right < 1 or bottom < 1 or left > width or top > height:
            kind = "box-outside"
        if kind is not None:
            faults.add(kind, f"{path}: object {index} has the box {list(box)} in an image of {width} x {height}")


def image_sizes(split: VocSplit, ids: list[str]) -> np.ndarray:
    """Return (N, 2) int32 widths and heights from the headers of the image files, for sets without annotations.

    Raises:
        DataError: a file is no image.
    """
    from PIL import Image, UnidentifiedImageError

    sizes = np.zeros((len(ids), 2), dtype=np.int32)
    for row, name in enumerate(ids):
        path = Path(split.images) / f"{name}.jpg"
        try:
            # A named pipe would block.
            with open(path, "rb") if os.path.isfile(path) else io.BytesIO() as file, Image.open(file) as image:
                sizes[row] = image.size
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); unpack the images again") from None
    return sizes

"""A VOC split in memory."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbone.common.errors import DataError
from backbone.common.text import nearest
from backbone.common.voc_annotation import Annotation, AnnotationFault, read_annotation
from backbone.common.waiting import passing

from ..checks.files import Folder
from .faults import Faults
from .layout import VocSplit, read_ids


@dataclass(frozen=True, eq=False)
class VocObjects:
    """The images of a split and their objects, as the files have them.

    Attributes:
        ids: of the N images, as the list of the split has them.
        sizes: (N, 2) int32, width and height in pixels; zeros where there is no annotation to say.
        image: (M,) int64, the position of each object's image, rising.
        labels: (M,) int64, positions in `split.classes`.
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
    label_of = {name: label for label, name in enumerate(split.written)}
    boxes = np.array([box for _, found in columns for box in found.boxes], dtype=np.float64).reshape(-1, 4)
    objects = VocObjects(
        split=split,
        ids=ids,
        sizes=sizes,
        image=np.array([row for row, found in columns for _ in found.names], dtype=np.int64),
        labels=np.array([label_of[name] for _, found in columns for name in found.names], dtype=np.int64),
        boxes=boxes + (1 - split.first_pixel),
        difficult=np.array([flag for _, found in columns for flag in found.difficult], dtype=bool),
    )
    rows = split.rows_of(objects.image, objects.labels, len(ids))
    return objects if rows is None else _of_images(objects, rows)


def _of_images(objects: VocObjects, rows: np.ndarray) -> VocObjects:
    """Return the objects of the images at `rows`, which rise."""
    kept = np.isin(objects.image, rows)
    return VocObjects(
        split=objects.split,
        ids=[objects.ids[row] for row in rows.tolist()],
        sizes=objects.sizes[rows],
        image=np.searchsorted(rows, objects.image[kept]),
        labels=objects.labels[kept],
        boxes=objects.boxes[kept],
        difficult=objects.difficult[kept],
    )


def _check_images(split: VocSplit, ids: list[str], faults: Faults) -> None:
    if not split.images.is_dir():
        raise DataError(f"{split.images} does not exist; unpack the images of {split.folder.name} again")
    # One look at a folder is faster than thousands at files.
    folder = Folder(split.images)
    for name in ids:
        if not folder.has(f"{name}{split.suffix}"):
            faults.add("missing-image", f"{split.images / name}{split.suffix} does not exist")


def _read_all(split: VocSplit, ids: list[str], faults: Faults) -> dict[str, Annotation]:
    if not split.annotations.is_dir():
        raise DataError(f"{split.annotations} does not exist; unpack the annotations of {split.folder.name} again")
    folder = f"{split.annotations}{os.sep}"
    annotations = {}
    for name in passing(ids, f"reading {split.list_file.name}", unit="file", plural="files"):
        path = f"{folder}{name}.xml"
        try:
            found = read_annotation(path)
        except AnnotationFault as fault:
            faults.add(fault.kind, str(fault))
            continue
        _check_objects(found, path, split, faults)
        annotations[name] = found
    return annotations


def _check_objects(annotation: Annotation, path: str, split: VocSplit, faults: Faults) -> None:
    width, height = annotation.size
    first = split.first_pixel
    for index, (name, box) in enumerate(zip(annotation.names, annotation.boxes), 1):
        if name not in split.written:
            faults.add("unknown-class", f"{path}: object {index} is a {name!r}{nearest(name, split.written)}")
        left, top, right, bottom = box
        kind = None
        if not all(map(math.isfinite, box)):
            kind = "nan-box"
        elif right < left or bottom < top:
            kind = "empty-box"
        elif right < first or bottom < first or left > width - 1 + first or top > height - 1 + first:
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
        path = Path(split.images) / f"{name}{split.suffix}"
        try:
            # A named pipe would block.
            with open(path, "rb") if os.path.isfile(path) else io.BytesIO() as file, Image.open(file) as image:
                sizes[row] = image.size
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); unpack the images again") from None
    return sizes

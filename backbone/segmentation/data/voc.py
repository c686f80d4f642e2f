"""PASCAL VOC's tree: lists of images, and label images in its colours."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ...common.class_names import VOC_CLASSES
from ...common.errors import DataError
from ...common.images import list_images
from ...common.reading import read_lines
from ...common.text import nearest
from .coco import BACKGROUND
from .folders import check_files, find_classes
from .form import form_of
from .sets import LabelledFiles

LISTS = "ImageSets/Segmentation"


def open_voc(root: Path, split: str, data: Any, *, check: bool = True) -> LabelledFiles:
    """Open the set VOC<DATA.YEAR> below a root, or the root itself; its split `test` has no labels.

    Args:
        check: whether each file must be there.

    Raises:
        DataError: a folder, the list of the split or a file that it names is missing.
    """
    year, labels = data.YEAR, data.LABEL_FOLDER
    places = [root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}", root]
    folder = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if folder is None:
        raise DataError(f"{root}: holds no VOCdevkit/VOC{year}/JPEGImages; --data-root names the folder of VOCdevkit")
    list_file = folder / LISTS / f"{split}.txt"
    if not os.path.lexists(list_file):
        known = sorted(path.stem for path in list_file.parent.glob("*.txt"))
        hint = nearest(split, known) if known else "; it is part of the official VOC archives"
        raise DataError(f"{list_file}: no such list of images{hint}")
    files = {os.path.splitext(name)[0]: name for name in list_images(folder / "JPEGImages")}
    stems = [_stem(line, files) for line in read_lines(list_file) if line]
    has_truth = split != "test"
    if has_truth and not (folder / labels).is_dir():
        raise DataError(f"{folder / labels}: the folder of label images does not exist (DATA.LABEL_FOLDER)")
    records = [
        (folder / "JPEGImages" / files.get(stem, f"{stem}.jpg"), folder / labels / f"{stem}.png" if has_truth else None)
        for stem in stems
    ]
    if check:
        check_files(records)
    # Another list of classes is that of a set of one's own in VOC's tree.
    known = find_classes(data.CLASSES, [folder], (BACKGROUND, *VOC_CLASSES))
    form = form_of(data, known.names, known.colours, known.numbers)
    return LabelledFiles(f"VOC{year} {split}", form, records, has_truth=has_truth)


def _stem(line: str, stems: Collection[str]) -> str:
    """Return the name in a line of a list: all of it, blanks too, where there is such an image, else its first word."""
    words = (line, os.path.splitext(line)[0], line.split()[0])
    return next((word for word in words if word in stems), words[-1])

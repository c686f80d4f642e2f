"""Cityscapes' tree: images and labels by city, and the 19 classes of its benchmark among 34 numbers."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...common.errors import DataError
from ...common.images import find_images, list_folders
from ...common.text import nearest
from .folders import check_files
from .form import VOID, make_form
from .sets import LabelledFiles

IMAGES, IMAGE_END = "leftImg8bit", "_leftImg8bit"
COARSE = "gtCoarse"
FINE = "gtFine"
LABEL_IDS = "_labelIds"
# The number of each class in files *_labelIds.png; all others are void in the benchmark.
IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
# The label of each of the 34 numbers; a licence plate is -1, in a file 255.
NUMBERS = dict.fromkeys(range(34), VOID) | {number: label for label, number in enumerate(IDS.values())}


def numbers_of(files: Collection[Path], classes: Sequence[str]) -> Mapping[int, int] | None:
    """Return the label of each number of Cityscapes' *_labelIds.png; None of other files, or for other classes."""
    own = list(classes) == list(IDS) and all(file.stem.endswith(LABEL_IDS) for file in files)
    return NUMBERS if files and own else None


def open_cityscapes(root: Path, split: str, data: Any, *, check: bool = True) -> LabelledFiles:
    """Open leftImg8bit/<split> with gtFine/<split>, or with gtCoarse where DATA.LABEL_FOLDER says so.

    Files *_labelIds.png are read by their numbers, or *_labelTrainIds.png where those are missing. The labels of
    `test` stay with the benchmark's server; the files of that name are void.

    Args:
        check: whether each file must be there.

    Raises:
        DataError: a folder or a file is missing.
    """
    below = root / "cityscapes" if (root / "cityscapes").is_dir() else root
    images = below / IMAGES / split
    if not images.is_dir():
        known = list_folders(below / IMAGES) if (below / IMAGES).is_dir() else []
        raise DataError(f"{images}: the folder does not exist{nearest(split, known)}")
    files = [path for path in find_images(images) if path.stem.endswith(IMAGE_END)]
    if not files:
        raise DataError(f"{images}: holds no images CITY/*{IMAGE_END}.png")
    kind = COARSE if data.LABEL_FOLDER == COARSE else FINE
    has_truth = split != "test"
    labels = below / kind / split
    stems = [labels / path.parent.name / f"{path.stem.removesuffix(IMAGE_END)}_{kind}" for path in files]
    ends = (f"{LABEL_IDS}.png", "_labelTrainIds.png")
    end = next((end for end in ends if os.path.isfile(f"{stems[0]}{end}")), ends[0])
    records = [(path, Path(f"{stem}{end}") if has_truth else None) for path, stem in zip(files, stems)]
    if check:
        check_files(records)
    form = make_form(list(IDS), numbers=NUMBERS if end == ends[0] else None)
    return LabelledFiles(f"Cityscapes {split}", form, records, has_truth=has_truth)

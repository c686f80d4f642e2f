"""Instance annotations in COCO form as labels: the category of the object at every pixel."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...common.class_names import meaning
from ...common.errors import DataError
from ...common.reading import read_text
from ..evaluation import VOID
from .folders import PARTS
from .sets import CocoImage, CocoImages

BACKGROUND = "background"
YEARS = ("", "2017", "2014")  # behind the name of a folder of COCO


def open_coco(
    name: str,
    json_file: Path,
    images: Path | None,
    *,
    part: str = "",
    classes: Sequence[str] | None = None,
    all_needed: bool = True,
    least_area: int = 0,
) -> CocoImages:
    """Open the annotations of a COCO file as a set of label images.

    Args:
        images: the folder that file names are relative to; None finds it near the JSON file.
        part: "train" or "val", whose flag names that folder.
        classes: in the order of their labels from 1, each a category of the same meaning; by default all categories by
            id. Objects of other categories are background.
        all_needed: whether the file must have a category for each class; one of them it must have.
        least_area: images with fewer annotated pixels of these classes are left out; 0 keeps all.

    Raises:
        DataError: a file or folder is missing, or the JSON is not of COCO's form.
    """
    content = _read(json_file)
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: the folder of images does not exist")
    try:
        images = images or _find_images(json_file, content["images"], f"--{part}-images")
        # A name may have several ids. What is called background is no class of its own.
        ids = sorted((category["id"], category["name"]) for category in content["categories"])
        known = [name for name in dict.fromkeys(name for _, name in ids) if name != BACKGROUND]
        own = (lambda name: name) if classes is None else meaning
        classes = known if classes is None else classes
        if len(classes) >= VOID:
            raise DataError(f"{json_file}: has {len(classes)} categories; labels hold {VOID - 1} beside the background")
        missing = [name for name in classes if own(name) not in map(own, known)]
        if missing and (all_needed or len(missing) == len(classes)):
            raise DataError(f"{json_file}: has no category {missing[0]!r}; DATA.COCO_CLASSES all takes those it has")
        labels = {own(name): label for label, name in enumerate(classes, start=1)}
        label_of = {identity: labels[own(name)] for identity, name in ids if own(name) in labels}
        parts, areas = _parts(content["annotations"], label_of)
        records = [
            CocoImage(images / image["file_name"], *_size(image), tuple(parts[image["id"]]))
            for image in content["images"]
            if areas[image["id"]] >= least_area
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{json_file}: not annotations in COCO form: {type(error).__name__} {error}") from None
    return CocoImages(name, [BACKGROUND, *classes], records)


def _find_images(json_file: Path, records: Sequence[Mapping[str, Any]], flag: str) -> Path:
    """Return the folder that holds the first image: that of the JSON file, or one beside it or above."""
    first = records[0]["file_name"] if records else "."
    folders = (json_file.parent, json_file.parent.parent)
    names = ("", "images", "data", *(name + year for part in PARTS.values() for name in part for year in YEARS))
    places = [folder / below / name for folder in folders for below in ("", "images") for name in names]
    found = next((place for place in places if (place / first).exists()), None)
    if found is None:
        raise DataError(f"{json_file}: its first image {first!r} is not found near it; {flag} names the images' folder")
    return found


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    """Return width and height of an image's record."""
    size = image["width"], image["height"]
    if not all(isinstance(side, (int, float)) and 1 <= side == int(side) for side in size):
        raise TypeError(f"an image of width {size[0]!r:.40} and height {size[1]!r:.40}")
    return int(size[0]), int(size[1])


def _parts(annotations: Sequence[Mapping[str, Any]], label_of: Mapping[int, int]) -> tuple[dict, dict]:
    """Return labels and segmentations by image, and their areas' sums."""
    parts, areas = defaultdict(list), defaultdict(float)
    for annotation in annotations:
        label = label_of.get(annotation["category_id"])
        if label is not None and annotation.get("segmentation"):
            parts[annotation["image_id"]].append((label, annotation["segmentation"]))
            areas[annotation["image_id"]] += annotation.get("area", 0)
    return parts, areas


def _read(path: Path) -> Mapping[str, Any]:
    if not os.path.lexists(path):
        raise DataError(
            f"{path}: the annotations do not exist; --data-root names the folder of coco/, --train and --val a file"
        )
    try:
        content = json.loads(read_text(path, largest=None))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not annotations in COCO form: no mapping at the top")
    return content

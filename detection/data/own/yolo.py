"""YOLO's form: one text file an image, a line an object: class, and the box or a polygon in shares of the image."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbone.common.errors import DataError
from backbone.common.images import find_images, is_image_name, list_images
from backbone.common.reading import read_lines
from backbone.common.waiting import passing

from ..sets import first_difference
from .data_yaml import entries_of, find_names, names_in, read_description
from .place import YAML, Place
from .records import DECIMALS, Records, image_size

# Shares beyond the image by less than this are rounding, and are cut off.
SLACK = 0.001


def read_yolo(place: Place, classes: Sequence[str] | None) -> tuple[dict[str, Any], Path]:
    """Read a set from data.yaml, from a list of images or from a folder of images.

    Args:
        classes: in their order; None for those of data.yaml or classes.txt.

    Returns:
        The set in COCO's form, and the folder that its file names are relative to.

    Raises:
        DataError: something is missing or malformed; the message names file and line.
    """
    if place.source.suffix.lower() in YAML:
        description = read_description(place.source)
        names, described = names_in(description, place.source), place.source
        entries = entries_of(description, place)
    else:
        names, described = find_names(place.source)
        entries = [place.source if place.source.is_file() else place.images or place.source]
    images = [file for entry in entries for file in _images_at(entry, place.source)]
    if not images:
        raise DataError(f"{place.source}: no images of {place.part}; looked in {', '.join(map(str, entries))}")
    if classes is not None and list(classes) != names:
        found = first_difference(names, list(classes))
        raise DataError(f"{described}: has other classes than DATASETS.CUSTOM.CLASSES or the training set: {found}")
    folder = Path(os.path.commonpath([str(image.parent) for image in images]))
    labels = [(image, label_file(image)) for image in images]
    if not any(label.is_file() for _, label in labels):
        raise DataError(
            f"{place.source}: none of {len(images):,} images has labels; looked for {labels[0][1]} and its like"
        )
    _check_all_have_images({label for _, label in labels})
    records = Records()
    for image, label in passing(labels, f"reading {place.source}", unit="file", plural="files"):
        size = image_size(image)
        number = records.add_image(image.relative_to(folder).as_posix(), size)
        if label.is_file():
            _add_objects(records, number, label, size, names, described)
    return records.as_coco(names, place.source, mend="correct the label"), folder


def label_file(image: Path) -> Path:
    """Return the label file of an image: labels/ in the place of the last images/ of its path, else beside it."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")


def _images_at(entry: Path, source: Path) -> list[Path]:
    """Return the images of a folder, at any depth, or of a list."""
    if entry.is_dir():
        if not list_images(entry) and (entry / "images").is_dir():
            entry = entry / "images"
        return find_images(entry)
    if not entry.is_file():
        raise DataError(f"{source}: {entry} does not exist; correct its path")
    return [_listed(entry, number, line) for number, line in enumerate(read_lines(entry), 1) if line]


def _listed(file: Path, number: int, line: str) -> Path:
    name = line.replace("\\", "/")
    if ".." in name.split("/"):
        raise DataError(f"{file}, line {number}: {line!r} leads out of the folder; list paths below it")
    # CVAT writes data/obj_train_data/a.jpg, and data is the folder of the list itself.
    near = [file.parent / name, file.parent / name.removeprefix("data/")]
    found = next((path for path in near if path.is_file()), None)
    if found is None or not is_image_name(found.name):
        raise DataError(f"{file}, line {number}: no image {line!r} (looked for {near[0]}); correct the path")
    return found


def _check_all_have_images(labels: set[Path]) -> None:
    """Raise DataError for a label file without an image: half of an export is missing."""
    others = {"classes", "labels", "predefined_classes", "train", "val", "valid", "test", "notes"}
    for folder in sorted({label.parent for label in labels if label.parent.is_dir()}):
        for path in sorted(folder.glob("*.txt")):
            if path not in labels and path.stem not in others and not path.stem.lower().startswith("readme"):
                raise DataError(f"{path}: no image of its name; add the image, or take the file out")


def _add_objects(
    records: Records, image: int, path: Path, size: tuple[int, int], names: Sequence[str], described: Path
) -> None:
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        where = f"{path}, line {number}"
        label, values = _numbers(line, where)
        if not 0 <= label < len(names):
            raise DataError(f"{where}: class {label}, but {described} names {len(names)}, 0 to {len(names) - 1}")
        points = values
        if len(values) == 4:
            x, y, width, height = values
            points = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            if width < 0 or height < 0:
                raise DataError(f"{where}: width and height are {width:g} and {height:g}; they must be 0 or more")
        if max(values) > 1 + SLACK or min(values) < -SLACK:
            kind = "pixels" if max(values) > 2 else "outside of the image"
            raise DataError(f"{where}: {line!r} is in {kind}; YOLO's numbers are shares of the image, from 0 to 1")
        pixels = [round(share * size[index % 2], DECIMALS) for index, share in enumerate(points)]
        corners = (min(pixels[::2]), min(pixels[1::2]), max(pixels[::2]), max(pixels[1::2]))
        records.add_object(image, names[label], corners, polygon=None if len(values) == 4 else pixels)


def _numbers(line: str, where: str) -> tuple[int, list[float]]:
    fields = line.split()
    polygon = len(fields) >= 7 and len(fields) % 2 == 1
    if len(fields) != 5 and not polygon:
        confidence = "; a sixth is the score of a prediction, which is no truth" if len(fields) == 6 else ""
        raise DataError(
            f"{where}: {len(fields)} columns; a box has 5 (class, x, y, width, height), a polygon 7 or more{confidence}"
        )
    try:
        label, *values = map(float, fields)
    except ValueError:
        raise DataError(f"{where}: {line!r} is not all numbers; the class is written by its number") from None
    if not all(map(math.isfinite, (label, *values))) or not label.is_integer():
        raise DataError(f"{where}: {line!r}: the class is a whole number, and all values are finite")
    return int(label), values

"""A table of boxes: CSV with a line an object. The names of its columns vary from tool to tool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbone.common.errors import DataError
from backbone.common.own_data import IMAGE, LABEL, find_folder, leaves_folder, read_table, words_of
from backbone.common.text import some

from .records import Records, image_size

# What the columns of corners, or of a corner and sides, are called, in small letters, without blanks, _ and -.
CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"),
)
SIDES = (
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
)
PLAIN = ("image", "x1", "y1", "x2", "y2", "class")
WANTED = "image,x1,y1,x2,y2,class"


def read_boxes(source: Path, images: Path | None, classes: Sequence[str] | None) -> tuple[dict[str, Any], Path]:
    """Read a CSV file (`,`, `;` or tabs), with a header or as image,x1,y1,x2,y2,class; corners are pixels from 0.

    A line with an image alone is an image without objects.

    Args:
        classes: in their order; None for those that are found, by the alphabet.

    Returns:
        The set in COCO's form, and the folder of its images.

    Raises:
        DataError: a line is malformed, or an image is missing.
    """
    lines = read_table(source, WANTED)
    columns, sides, body = _columns(lines, source)
    rows = [_row(fields, columns, sides, f"{source}, line {number}", len(lines[0][1])) for number, fields in body]
    names = list(dict.fromkeys(name for name, *_ in rows))
    outside = next((name for name in names if leaves_folder(name)), None)
    if outside is not None:
        raise DataError(f"{source}: the image {outside!r} leads out of the folder; write names below it")
    folder = images or find_folder(source, names)
    records, ids = Records(), {}
    for name in names:
        ids[name] = records.add_image(name, image_size(_existing(folder / name, source)))
    for name, label, corners in rows:
        if corners is not None:
            records.add_object(ids[name], label, corners)
    mend = "correct the name, or set DATASETS.CUSTOM.CLASSES"
    return records.as_coco(classes or sorted(set(records.names)), source, mend=mend), folder


def _columns(
    lines: list[tuple[int, list[str]]], source: Path
) -> tuple[dict[str, int], bool, list[tuple[int, list[str]]]]:
    """Return where image, class and the four numbers stand, whether these are corner and sides, and the lines."""
    at = words_of(lines[0][1])
    image = next((at[name] for name in IMAGE if name in at), None)
    if image is None:
        if len(lines[0][1]) == len(PLAIN) and all(map(_is_number_or_empty, lines[0][1][1:5])):
            return {name: index for index, name in enumerate(PLAIN)}, False, lines
        raise DataError(f"{source}: no column of the images in {some(lines[0][1], 8)}; write a header {WANTED}")
    label = next((at[name] for name in LABEL if name in at), None)
    # The sides of the image may stand beside the corners of the box.
    for sides, forms in ((False, CORNERS), (True, SIDES)):
        for form in forms:
            if label is not None and all(name in at for name in form):
                numbers = dict(zip(PLAIN[1:5], (at[name] for name in form)))
                return {"image": image, "class": label, **numbers}, sides, lines[1:]
    raise DataError(f"{source}: no columns of the class and of four corners in {some(lines[0][1], 12)}; write {WANTED}")


def _row(
    fields: list[str], columns: dict[str, int], sides: bool, where: str, width: int
) -> tuple[str, str, tuple[float, float, float, float] | None]:
    if len(fields) != width:
        raise DataError(f"{where}: {len(fields)} columns, the first line has {width}")
    name, label = fields[columns["image"]], fields[columns["class"]]
    values = [fields[columns[key]] for key in PLAIN[1:5]]
    if not name:
        raise DataError(f"{where}: no image")
    name = name.replace("\\", "/").removeprefix("./")
    if not label and not any(values):
        return name, "", None
    if not label:
        raise DataError(f"{where}: no class")
    try:
        first = [float(value) for value in values]
    except ValueError:
        raise DataError(f"{where}: {', '.join(values)} are not four numbers of pixels") from None
    if not all(map(math.isfinite, first)):
        raise DataError(f"{where}: {', '.join(values)} are not finite")
    left, top, right, bottom = first
    return name, label, (left, top, left + right, top + bottom) if sides else (left, top, right, bottom)


def _is_number_or_empty(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def _existing(path: Path, source: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{source}: the image {path} does not exist; add it, or take its lines out")
    return path

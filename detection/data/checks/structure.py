"""The fast check: records, ids, boxes and masks of a COCO-form data set, and whether its files exist.

No image is opened; COCO train2017 (118k images, 860k annotations) takes seconds.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backbone.common.own_data import leaves_folder

from ...coco_json.columns import MISSING, Integers, column, repeated, repeated_names
from .annotations import check_annotations
from .files import Folder
from .kinds import Fault, Findings, name_category, name_image, show
from .tables import Categories, Images, integer_column

LISTS = ("images", "annotations", "categories")


def check_coco(data: object, images: Path, *, source: str) -> list[Fault]:
    """Check a data set in COCO form without opening its images.

    Args:
        data: what the JSON file holds; boxes are [x, y, width, height] in absolute pixels.
        images: folder that the file names are relative to.
        source: the JSON file, for messages.

    Returns:
        All faults, errors first; empty when there is nothing to say.
    """
    findings = Findings()
    if has_lists(data, findings, source):
        records = {name: _records(data[name], name, findings) for name in LISTS}
        image_table = _check_images(records["images"], Path(images), findings, source)
        category_table = _check_categories(records["categories"], findings, source)
        check_annotations(records["annotations"], image_table, category_table, findings)
        _check_header(data, findings, source)
    return findings.faults()


def has_lists(data: object, findings: Findings, source: str) -> bool:
    """Whether the data is an object with the three lists; notes what is not so."""
    if not isinstance(data, dict):
        hint = "; it looks like a file of detection results" if isinstance(data, list) else ""
        findings.add_one("not-a-dict", f"{source}: holds a {type(data).__name__} at the top{hint}")
        return False
    missing = [name for name in LISTS if name not in data]
    findings.add("missing-list", range(len(missing)), lambda place: f"{source}: no {missing[place]!r}")
    wrong = [name for name in LISTS if name in data and not isinstance(data[name], list)]
    findings.add(
        "not-a-list", range(len(wrong)), lambda place: f"{source}: {wrong[place]!r} is {show(data[wrong[place]])}"
    )
    return not missing and not wrong


def _records(values: list, name: str, findings: Findings) -> list[dict]:
    records = [value for value in values if isinstance(value, dict)]
    if len(records) < len(values):
        others = [index for index, value in enumerate(values) if not isinstance(value, dict)]
        findings.add("not-a-record", others, lambda index: f"{name}[{index}] is {show(values[index])}")
    return records


def _check_header(data: dict, findings: Findings, source: str) -> None:
    if not isinstance(data.get("info"), dict):
        findings.add_one("missing-info", f"{source}: no 'info' object")
    if not isinstance(data.get("licenses"), list):
        findings.add_one("missing-licenses", f"{source}: no 'licenses' list")


def _check_images(records: list[dict], root: Path, findings: Findings, source: str) -> Images:
    if not records:
        findings.add_one("no-images", f"{source}: 'images' is empty")
    ids, widths, heights = (integer_column(records, key, "image", findings) for key in ("id", "width", "height"))
    _check_sizes(records, widths, heights, findings)
    places = np.flatnonzero(ids.valid)
    again = places[repeated(ids.values[places])]
    findings.add("duplicate-image-id", again, lambda index: f"{name_image(records[index], index)}: the id stands twice")
    _check_file_names(records, root, findings)
    return Images.of(ids, widths, heights)


def _check_sizes(records: list[dict], widths: Integers, heights: Integers, findings: Findings) -> None:
    bad = (widths.valid & (widths.values <= 0)) | (heights.valid & (heights.values <= 0))

    def describe(index: int) -> str:
        size = f"{show(records[index].get('width'))} x {show(records[index].get('height'))}"
        return f"{name_image(records[index], index)}: width x height {size}"

    findings.add("bad-size", np.flatnonzero(bad), describe)


def _check_file_names(records: list[dict], root: Path, findings: Findings) -> None:
    names = column(records, "file_name")
    missing = [index for index, name in enumerate(names) if name is MISSING]
    wrong = [index for index, name in enumerate(names) if name is not MISSING and not is_text(name)]
    findings.add("missing-image-key", missing, lambda index: f"{name_image(records[index], index)}: no 'file_name'")
    findings.add("wrong-image-type", wrong, lambda index: f"{name_image(records[index], index)}: file_name")
    texts = [name if is_text(name) else None for name in names]
    again = repeated_names([name and posixpath.normpath(name) for name in texts])
    findings.add("duplicate-file-name", again, lambda index: f"{name_image(records[index], index)}: listed twice")
    outside = {index for index, name in enumerate(texts) if name and leaves_folder(name)}
    findings.add("path-outside-folder", sorted(outside), lambda index: name_image(records[index], index))
    if not root.is_dir():
        findings.add_one("missing-folder", f"{root}: no such folder")
        return
    _check_files(records, texts, outside, Folder(root), findings)


def _check_files(
    records: list[dict], names: Sequence[str | None], outside: set[int], folder: Folder, findings: Findings
) -> None:
    absent = [index for index, name in enumerate(names) if name and index not in outside and not folder.has(name)]

    def describe(index: int) -> str:
        near = folder.find(records[index])
        hint = f", which has {' and '.join(map(show, near[:3]))}" if near else ""
        return f"{name_image(records[index], index)}: not in {folder.root}{hint}"

    findings.add("missing-file", absent, describe)


def is_text(value: object) -> bool:
    """Whether a JSON value is a text with something in it."""
    return isinstance(value, str) and value.strip() != ""


def _check_categories(records: list[dict], findings: Findings, source: str) -> Categories:
    if not records:
        findings.add_one("no-categories", f"{source}: 'categories' is empty")
    ids = integer_column(records, "id", "category", findings)
    names = column(records, "name")
    missing = [index for index, name in enumerate(names) if name is MISSING]
    wrong = [index for index, name in enumerate(names) if name is not MISSING and not is_text(name)]
    findings.add("missing-category-key", missing, lambda index: f"{name_category(records[index], index)}: no 'name'")
    findings.add("wrong-category-type", wrong, lambda index: f"{name_category(records[index], index)}: name")
    places = np.flatnonzero(ids.valid)
    again = places[repeated(ids.values[places])]
    findings.add("duplicate-category-id", again, lambda index: name_category(records[index], index))
    again = repeated_names([name if is_text(name) else None for name in names])
    findings.add("duplicate-category-name", again, lambda index: name_category(records[index], index))
    _note_numbering(ids, records, findings, source)
    return Categories.of(ids, records)


def _note_numbering(ids: Integers, records: list[dict], findings: Findings, source: str) -> None:
    known = np.unique(ids.values[ids.valid])
    zero = np.flatnonzero(ids.valid & (ids.values == 0))
    findings.add("category-id-zero", zero[:1], lambda index: name_category(records[index], index))
    if len(known) and int(known[-1]) - int(known[0]) + 1 > len(known):
        span = f"{len(known)} ids between {known[0]} and {known[-1]}"
        findings.add_one("category-id-gaps", f"{source}: {span}")

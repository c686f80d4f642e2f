"""Image and category ids of predictions, taken from the annotations that they are to be evaluated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from backbone import DataError
from backbone.common.text import count, some

from ..data.checks import has_errors, raise_on_errors, read_json
from ..data.sets import real_categories


@dataclass(frozen=True)
class Listed:
    """What a JSON in COCO form lists of some files.

    Attributes:
        rows: the places of those that it lists, and `ids`: theirs.
        category_ids: by class index.
        note: what is left out on either side; "" for nothing.
    """

    rows: list[int]
    ids: list[int]
    category_ids: list[int]
    note: str = ""


def read_ids(path: Path, files: Sequence[str], classes: Sequence[str], ids: Sequence[int]) -> Listed:
    """Find files in a JSON: by their path, else by their bare name where only one record has it.

    Args:
        files: their paths below the folder that they have in common.
        classes: of the detector, and `ids`: its category ids, kept where the JSON lists no categories.

    Raises:
        DataError: it cannot be read, has another form, lists none of the files, two of them under one id, or lacks a
            class of the detector.
    """
    data, faults = read_json(path)
    if data is None or has_errors(faults):
        raise_on_errors(faults, str(path))
    records = data.get("images") if isinstance(data, dict) else None
    if not isinstance(records, list) or not all(_is_record(record) for record in records):
        raise DataError(f"--ids {path}: needs 'images', a list of records with id and file_name, as COCO's JSON files")
    whole = {str(PurePosixPath(record["file_name"].replace("\\", "/"))): record["id"] for record in records}
    bare: dict[str, list[int]] = {}
    for name, id_ in whole.items():
        bare.setdefault(PurePosixPath(name).name, []).append(id_)
    exact = {whole[name]: row for row, name in enumerate(files) if name in whole}
    found, taken = dict(exact), set(exact.values())
    for row, file in enumerate(files):
        alike = [] if row in taken else [id_ for id_ in bare.get(PurePosixPath(file).name, ()) if id_ not in exact]
        if len(alike) != 1:
            continue
        if alike[0] in found:
            both = f"{files[found[alike[0]]]} or {file}"
            raise DataError(f"--ids {path}: image {alike[0]} may be {both}; give --input the folder of the set")
        found[alike[0]] = row
    if not found:
        of_input = f"the {count(len(files), 'file')} of --input, such as {PurePosixPath(files[0]).name}"
        raise DataError(f"--ids {path}: lists none of {of_input}")
    notes = [f"{len(files) - len(found):,} of --input are not in it"] if len(files) > len(found) else []
    notes += [f"{len(records) - len(found):,} of it are not in --input"] if len(records) > len(found) else []
    note = f"{path}: {count(len(found), 'image')} found, {', '.join(notes)}" if notes else ""
    return Listed(list(found.values()), list(found), category_ids_of(f"--ids {path}", data, classes, ids), note)


def _is_record(record: object) -> bool:
    return isinstance(record, dict) and type(record.get("id")) is int and isinstance(record.get("file_name"), str)


def category_ids_of(source: str, data: dict, classes: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Return the category ids of a JSON in COCO form for the classes of a detector, found by name.

    Args:
        source: the flag and the file, for messages.
        ids: kept where the JSON lists no categories.

    Raises:
        DataError: it lacks a class of the detector.
    """
    categories = data.get("categories") or []
    if not isinstance(categories, list) or not all(isinstance(category, dict) for category in categories):
        raise DataError(f"{source}: 'categories' is no list of records")
    if not categories:
        return list(ids)
    known = {category.get("name"): category.get("id") for category in real_categories(data)}
    missing = [name for name in classes if type(known.get(name)) is not int]
    if missing:
        raise DataError(
            f"{source}: has no category of the detector's {count(len(missing), 'class', 'classes')} {some(missing)}"
        )
    return [known[name] for name in classes]

"""Writes the mended copy that check_data.py --fix asks for: drops what is useless, corrects what can be known."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backbone.common.errors import DataError
from backbone.common.own_data import leaves_folder

from .capture import captured_complaints
from .files import Folder
from .ids import Ids, to_integer
from .images import ImageFacts, check_images, inspect_image, size_fault
from .kinds import EXAMPLES, Fault, Findings, in_order, show
from .matching import NAME_KEYS
from .mend_annotations import mend_annotations
from .structure import LISTS, check_coco, has_lists, is_text
from .tables import keypoints_of


@dataclass(frozen=True)
class Mended:
    """A mended copy.

    Attributes:
        data: in COCO form; shares with the original what was not mended.
        actions: what was done, with counts, in the order it was first done.
        left: the faults that the copy still has.
    """

    data: dict
    actions: dict[str, int]
    left: list[Fault]


def mend(data: object, images: Path, *, source: str, facts: dict[str, ImageFacts] | None = None) -> Mended:
    """Mend a data set in COCO form. The data that is given stays as it is.

    Args:
        images: folder that the file names are relative to.
        source: the JSON file, for messages.
        facts: of `inspect_images`; without them images are opened only where the JSON has no usable size. Files that
            are found under a corrected name are added.

    Raises:
        DataError: the form is beyond mending, or nothing would be left.
    """
    findings = Findings()
    if not has_lists(data, findings, source):
        fault = findings.faults()[0]
        raise DataError(f"{fault.examples[0]}: this cannot be mended; {fault.mend}")
    if not Path(images).is_dir():
        raise DataError(f"{images}: no such folder, so nothing can be mended; give the folder of the image files")
    actions: Counter[str] = Counter()
    records = {name: _keep_records(data[name], name, actions) for name in LISTS}
    category_ids, categories = _mend_categories(records["categories"], actions)
    with captured_complaints():
        image_ids, image_records = _mend_images(records["images"], Folder(images), facts, actions)
    for name, kept in (("image", image_records), ("category", categories)):
        if not kept:
            raise DataError(f"{source}: no {name} would be left, so no mended copy is written; see the errors above")
    sizes = {record["id"]: (record["width"], record["height"]) for record in image_records}
    keypoints = {record["id"]: keypoints_of(record) for record in categories}
    annotations = mend_annotations(
        records["annotations"], image_ids.resolve, category_ids.resolve, sizes, keypoints, actions
    )
    mended = {**data, "images": image_records, "annotations": annotations, "categories": categories}
    _fill_header(mended, actions)
    return Mended(mended, dict(actions), faults_of(mended, images, source, facts))


def faults_of(data: object, images: Path, source: str, facts: dict[str, ImageFacts] | None) -> list[Fault]:
    """Return the faults of a data set, and of its files where these were decoded; errors first."""
    faults = check_coco(data, images, source=source)
    if facts is not None and has_lists(data, Findings(), source):
        faults += check_images(data, facts)
    return in_order(faults)


def _keep_records(values: list, name: str, actions: Counter[str]) -> list[dict]:
    records = [dict(value) for value in values if isinstance(value, dict)]
    if len(records) < len(values):
        actions[f"dropped from {name!r}: not an object"] += len(values) - len(records)
    return records


def _fill_header(data: dict, actions: Counter[str]) -> None:
    if not isinstance(data.get("info"), dict):
        data["info"] = {}
        actions["added: info"] += 1
    if not isinstance(data.get("licenses"), list):
        data["licenses"] = []
        actions["added: licenses"] += 1


def _mend_categories(records: list[dict], actions: Counter[str]) -> tuple[Ids, list[dict]]:
    ids = Ids(records)
    kept = []
    for record in records:
        if "id" not in record:
            actions["categories dropped: no id"] += 1
            continue
        id = ids.take(record)
        if id in ids.known:
            actions["categories dropped: the id stands before"] += 1
            continue
        _set(record, "id", id, "categories: id made an integer", actions)
        if not is_text(record.get("name")):
            name = record.get("name")
            made = str(name) if isinstance(name, (int, float)) else f"category_{id}"
            _set(record, "name", made, "categories: name made up or made text", actions)
        ids.known.add(id)
        kept.append(record)
    return ids, kept


def _set(record: dict, key: str, value: object, action: str, actions: Counter[str]) -> None:
    if key not in record or type(record[key]) is not type(value) or record[key] != value:
        record[key] = value
        actions[action] += 1


def _mend_images(
    records: list[dict], folder: Folder, facts: dict[str, ImageFacts] | None, actions: Counter[str]
) -> tuple[Ids, list[dict]]:
    ids = Ids(records)
    files = _Files(folder, facts, records, actions)
    originals: dict[int, dict] = {}
    by_file: dict[str, dict] = {}
    for record in records:
        original = dict(record)
        id = ids.take(record)
        if id in ids.known:
            same = originals[id] == original
            actions["images joined: the same record stands before" if same else "images dropped: the id is taken"] += 1
            continue
        if not files.mend(record):
            continue
        _set(record, "id", id, "images: id made an integer, or given", actions)
        before = by_file.setdefault(posixpath.normpath(record["file_name"]), record)
        if before is not record:
            _join(record, before, ids, actions)
            continue
        ids.known.add(id)
        originals[id] = original
    return ids, list(by_file.values())


def _join(record: dict, before: dict, ids: Ids, actions: Counter[str]) -> None:
    """Drop a record of a file that is listed before; its annotations go to that one if the sizes are the same."""
    if (record["width"], record["height"]) == (before["width"], before["height"]):
        ids.join(record["id"], before["id"])
        actions["images joined: the file is listed before"] += 1
    else:
        actions["images dropped: the file is listed before with another size"] += 1


def _written(record: dict) -> str:
    """Return the name that a record has, spelled in one way."""
    name = next((name for key in NAME_KEYS if is_text(name := record.get(key))), "")
    return posixpath.normpath(name) if name else name


class _Files:
    """Mends the file names and sizes of image records."""

    def __init__(
        self, folder: Folder, facts: dict[str, ImageFacts] | None, records: Iterable[dict], actions: Counter[str]
    ) -> None:
        self._folder = folder
        self._facts = facts
        self._actions = actions
        self._told = 0
        # file -> the names that mean it.
        self._claims: dict[str, list[str]] = {}
        for record in records:
            found = folder.find(record)
            claims = self._claims.setdefault(posixpath.normpath(found[0]), []) if len(found) == 1 else []
            if (name := _written(record)) not in claims:
                claims.append(name)

    def mend(self, record: dict) -> bool:
        """Mend one record in place; False means that it is to be dropped."""
        found = self._folder.find(record)
        claims = self._claims[posixpath.normpath(found[0])] if len(found) == 1 else []
        problem = None
        if len(found) > 1:
            problem = f"{show(_written(record))} may be {show(found[0])} or {show(found[1])}"
        elif len(claims) > 1 and not self._is_there(record):
            problem = f"{show(claims[0])} and {show(claims[1])} would both be {show(found[0])}"
        elif not found:
            named = is_text(record.get("file_name"))
            problem = "no such file in the image folder" if named else "no file name"
        if problem is not None:
            self._told += len(found) > 0
            if found and self._told > EXAMPLES:
                problem = "and others whose file is not clear"
            self._actions[f"images dropped: {problem}"] += 1
            return False
        _set(record, "file_name", found[0], "images: file name corrected", self._actions)
        return self._mend_size(record)

    def _is_there(self, record: dict) -> bool:
        name = record.get("file_name")
        return is_text(name) and not leaves_folder(name) and self._folder.has(name)

    def _mend_size(self, record: dict) -> bool:
        for key in ("width", "height"):
            size = to_integer(record.get(key))
            if size is not None and size > 0:
                _set(record, key, size, f"images: {key} made an integer", self._actions)
            else:
                record[key] = None
        if self._facts is None and None not in (record["width"], record["height"]):
            return True
        facts = self._inspect(record["file_name"])
        if facts.fault:
            self._actions[f"images dropped: {facts.fault}"] += 1
            return False
        if None in (record["width"], record["height"]) or size_fault(record, facts) == "size-mismatch":
            record["width"], record["height"] = facts.width, facts.height
            self._actions["images: width and height taken from the file"] += 1
        return True

    def _inspect(self, name: str) -> ImageFacts:
        if self._facts is None:
            return inspect_image(self._folder.root / name)
        if name not in self._facts:
            self._facts[name] = inspect_image(self._folder.root / name)
        return self._facts[name]

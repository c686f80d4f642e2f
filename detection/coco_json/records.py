"""Lists of JSON objects as numpy columns; a wrong value is named with its place."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from backbone.common.errors import DataError
from backbone.common.text import count

from .files import MENDS, read_json

MEND = "tools/check_data.py --fix writes a mended copy"


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Let Python look for no garbage meanwhile: it finds none in 200,000 records, and takes as long as reading them."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def read_source(source: str | Path | Any, name: str) -> tuple[Any, str]:
    """Return the value of a JSON file and its path, or the value given itself and `name`.

    Raises:
        DataError: the file is missing, empty, truncated or no JSON.
    """
    if not isinstance(source, (str, Path)):
        return source, name
    value, problems = read_json(Path(source))
    if value is None and problems:
        raise DataError(f"{problems[0].example}; {MENDS[problems[0].kind]}")
    return value, str(source)


class Records:
    """The objects of one JSON list.

    Args:
        rows: the list; each item must be an object.
        source: the file, for messages.
        label: what the list is called there, such as "annotations".
        mend: ends every message: what the user can do.

    Raises:
        DataError: not a list, or an item that is not an object.
    """

    def __init__(self, rows: object, source: str, label: str, mend: str = MEND) -> None:
        if not isinstance(rows, list):
            raise DataError(f"{source}: {label!r} is {_shorten(rows)}, not a list; {mend}")
        self.rows: list[dict[str, Any]] = rows
        self.source = source
        self.label = label
        self.mend = mend
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DataError(f"{source}: {label}[{index}] is {_shorten(row)}, not an object; {mend}")

    def __len__(self) -> int:
        return len(self.rows)

    def fail(self, index: int, problem: str, mend: str | None = None) -> NoReturn:
        """Raise a DataError about the record at `index`."""
        ids = [f"{key} {self.rows[index][key]}" for key in ("id", "image_id") if key in self.rows[index]]
        place = f"{self.label}[{index}]" + (f" ({', '.join(ids)})" if ids else "")
        raise DataError(f"{self.source}: {place}: {problem}; {mend or self.mend}")

    def column(self, key: str) -> list[Any]:
        """Return the value of `key` in each record; None where it is missing."""
        return [row.get(key) for row in self.rows]

    def required(self, key: str) -> list[Any]:
        """Return the value of `key` in each record.

        Raises:
            DataError: a record lacks it.
        """
        values = self.column(key)
        for index, value in enumerate(values):
            if value is None:
                self.fail(index, f"no {key!r}")
        return values

    def numbers(self, key: str, width: int | None = None, values: list[Any] | None = None) -> np.ndarray:
        """Return finite numbers as float64: (N,), or (N, width) where each value is a list.

        Args:
            values: one a record, in place of the required column `key`.

        Raises:
            DataError: a value is missing, not of this form, NaN or infinite.
        """
        values = self.required(key) if values is None else values
        numbers = _as_numbers(values, width)
        if numbers is None:
            index = next(index for index, value in enumerate(values) if _as_numbers([value], width) is None)
            form = "a number" if width is None else f"a list of {width} numbers"
            self.fail(index, f"{key!r} must be {form}, not {_shorten(values[index])}")
        finite = np.isfinite(numbers) if width is None else np.isfinite(numbers).all(axis=1)
        if not finite.all():
            index = int(np.argmin(finite))
            self.fail(index, f"{key!r} is not finite: {_shorten(values[index])}")
        return numbers

    def boxes(self, key: str = "bbox", values: list[Any] | None = None) -> np.ndarray:
        """Return boxes [x, y, width, height] as (N, 4) float64.

        Raises:
            DataError: as `numbers`, or a width or height is negative.
        """
        boxes = self.numbers(key, 4, values)
        negative = (boxes[:, 2:] < 0).any(axis=1)
        if negative.any():
            index = int(np.argmax(negative))
            self.fail(
                index,
                f"{key!r} {boxes[index].tolist()} has a negative width or height",
                f"boxes are [x, y, width, height]; {self.mend}",
            )
        return boxes

    def positions(self, key: str, known: Mapping[Any, int], owner: str) -> np.ndarray:
        """Return the position in `known` of each record's value of `key`, (N,) int64.

        Args:
            owner: what `known` is, for messages: "the images of gt.json".

        Raises:
            DataError: a value is missing or not known; the first ones are named with their number.
        """
        values = self.required(key)
        try:
            return np.array([known[value] for value in values], dtype=np.int64)
        except (KeyError, TypeError):
            self._fail_unknown(key, values, known, owner)

    def _fail_unknown(self, key: str, values: list[Any], known: Mapping[Any, int], owner: str) -> NoReturn:
        texts = {str(value) for value in known}
        unknown = [str(value) for value in values if not _is_known(value, known)]
        names = list(dict.fromkeys(unknown))
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        if unknown[0] in texts:
            advice = "one file writes these ids as text and the other as numbers; write both alike"
        else:
            advice = f"is this the right pair of files? known: {_range_of(known)}"
        raise DataError(
            f"{self.source}: {count(len(unknown), 'record')} of {self.label} with {key} {first}, "
            f"which {owner} do not have; {advice}"
        )


def is_absent(value: object) -> bool:
    """Whether there is no value, or an empty list in its place, as some tools write it."""
    return value is None or (isinstance(value, list) and not value)


def unique_ids(records: Records) -> list[Any]:
    """Return the required ids of images or categories, in the records' order.

    Raises:
        DataError: an id is missing, repeated, or neither a number nor text; numbers and texts are mixed.
    """
    ids = records.required("id")
    for index, value in enumerate(ids):
        if not isinstance(value, (int, float, str, np.integer)) or value != value:
            records.fail(index, f"'id' must be an integer, not {_shorten(value)}")
    if len({isinstance(value, str) for value in ids}) > 1:
        raise DataError(f"{records.source}: {records.label!r} mixes ids that are numbers and texts; {records.mend}")
    refuse_repeated_ids(records, ids)
    return ids


def refuse_repeated_ids(records: Records, ids: Sequence[Any]) -> None:
    """Raise a DataError when an id that is not None stands twice."""
    seen: dict[Any, int] = {}
    for index, value in enumerate(ids):
        if value is None:
            continue
        try:
            first = seen.setdefault(value, index)
        except TypeError:
            records.fail(index, f"'id' must be an integer, not {_shorten(value)}")
        if first != index:
            records.fail(index, f"repeats the id of {records.label}[{first}]")


def _as_numbers(values: list[Any], width: int | None) -> np.ndarray | None:
    shape = (len(values),) if width is None else (len(values), width)
    if not values:
        return np.zeros(shape)
    try:
        array = np.array(values)
    except (ValueError, TypeError, OverflowError):
        return None
    # As float64 at once, numpy would read the text "3" as a number.
    if array.dtype.kind not in "iuf" or array.shape != shape:
        return None
    return array.astype(np.float64)


def _is_known(value: object, known: Mapping[Any, int]) -> bool:
    try:
        return value in known
    except TypeError:
        return False


def _range_of(known: Mapping[Any, int]) -> str:
    if not known:
        return "none"
    return f"{count(len(known), 'id')} from {min(known)} to {max(known)}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Lists of JSON values as numpy columns, quickly where all is well and value by value where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import nan
from typing import Any

import numpy as np

MISSING: Any = object()
INT64 = np.iinfo(np.int64)


def column(records: Sequence[dict], key: str) -> list:
    """Return one value a record; `MISSING` where the key is."""
    return [record.get(key, MISSING) for record in records]


@dataclass(frozen=True)
class Integers:
    """A column of integers.

    Attributes:
        values: (N,) int64; 0 where there is none.
        valid: (N,) bool.
        missing, wrong, floats: indices of values that are absent, no integer, or written as 640.0 (these are valid).
    """

    values: np.ndarray
    valid: np.ndarray
    missing: np.ndarray
    wrong: np.ndarray
    floats: np.ndarray


def integers(values: list) -> Integers:
    """Read a column of integers that fit 64 bits; a bool or a text is wrong."""
    none = np.empty(0, np.int64)
    if set(map(type, values)) <= {int}:
        try:
            return Integers(np.array(values, np.int64), np.ones(len(values), bool), none, none, none)
        except OverflowError:
            pass
    read = [whole_number(value) for value in values]
    valid = np.array([value is not None for value in read], bool)
    missing = np.array([value is MISSING for value in values], bool)
    floats = np.array([type(value) is float for value in values], bool)
    numbers = np.array([value or 0 for value in read], np.int64)
    return Integers(numbers, valid, *map(np.flatnonzero, (missing, ~valid & ~missing, valid & floats)))


def whole_number(value: object) -> int | None:
    """Return a JSON number without a fraction as an int of 64 bits; None for anything else, bools among it."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and INT64.min <= value <= INT64.max else None


def number(value: object) -> float | None:
    """Return a JSON number as a float, which may be NaN or infinite; None for anything else, bools among it."""
    if type(value) is not int and type(value) is not float:
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def numbers(values: list) -> np.ndarray:
    """Read a column of numbers: (N,) float64, NaN where there is none."""
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, np.float64)
        except OverflowError:
            pass
    return np.array([nan if (read := number(value)) is None else read for value in values], np.float64)


def boxes(values: list) -> tuple[np.ndarray, np.ndarray]:
    """Read a column of boxes.

    Returns:
        (N, 4) float64 with NaN where a value is not four numbers, and (N,) bool: whether it is.
    """
    if set(map(type, values)) <= {list} and set(map(len, values)) <= {4}:
        flat = list(chain.from_iterable(values))
        if set(map(type, flat)) <= {int, float}:
            try:
                return np.array(flat, np.float64).reshape(-1, 4), np.ones(len(values), bool)
            except OverflowError:
                pass
    read = [four_numbers(value) for value in values]
    well_formed = np.array([box is not None for box in read], bool)
    return np.array([box or (nan,) * 4 for box in read], np.float64).reshape(-1, 4), well_formed


def four_numbers(value: object) -> list[float] | None:
    """Return a list of four numbers as floats; None for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return None
    read = [number(part) for part in value]
    return None if None in read else read


def repeated(values: np.ndarray) -> np.ndarray:
    """Return the indices of the values that stand before in the same column."""
    later = np.ones(len(values), bool)
    later[np.unique(values, return_index=True)[1]] = False
    return np.flatnonzero(later)


def repeated_names(names: Sequence[str | None]) -> list[int]:
    """Return the indices of the names that stand before in the same list."""
    seen: set[str] = set()
    again = []
    for index, name in enumerate(names):
        if name in seen:
            again.append(index)
        elif name is not None:
            seen.add(name)
    return again

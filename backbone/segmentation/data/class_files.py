"""Lists of class names, with the colours or numbers that stand for them where a file has such columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...common.errors import DataError
from ...common.reading import read_lines
from ..evaluation import VOID
from .form import VOID_NAMES

Colour = tuple[int, int, int]
# The columns of a table of classes by what their heads may say.
NAMES = ("name", "class", "label", "category")
NUMBERS = ("pixel value", "pixel_value")
CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))
# CVAT's labelmap.txt: a name, its colour, parts and actions.
CVAT = re.compile(r"([^:]+):(\d+),(\d+),(\d+):[^:]*:[^:]*")
PLAIN_COLOUR = re.compile(r"(.*\S)\s+(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})")


@dataclass(frozen=True)
class ClassList:
    """The classes of a set.

    Attributes:
        names: by label.
        colours: label by colour; a class called void or ignore has the label VOID. {} where the list has none.
        numbers: label by number in label files; None where numbers are labels.
    """

    names: list[str]
    colours: Mapping[Colour, int] = field(default_factory=dict)
    numbers: Mapping[int, int] | None = None


def read_class_list(path: Path) -> ClassList:
    """Read class names, one a line, first that of label 0.

    A line may have a colour behind its name (`road 128 64 128`). CVAT's labelmap.txt and tables with a head are read
    too: CSV or tabs, with `name`, and `r`, `g`, `b` (CamVid) or `Pixel Value` (Roboflow).

    Raises:
        DataError: it cannot be read, or does not hold 2 to 255 different classes and colours.
    """
    try:
        lines = [line for line in read_lines(path) if line]
    except DataError as error:
        raise DataError(f"{error}; give the class names, one a line (DATA.CLASSES)") from None
    rows = _table(lines, path) or _cvat(lines) or _coloured(lines) or [(line, None, None) for line in lines]
    colours: dict[Colour, int] = {}
    names: list[str] = []
    numbers: dict[int, int] = {}
    for name, colour, number in rows:
        void = colour is not None and name.casefold() in VOID_NAMES
        label = VOID if void else len(names)
        if not void:
            names.append(name)
        if colour is not None:
            if colour in colours:
                raise DataError(f"{path}: gives the colour {' '.join(map(str, colour))} twice, the second to {name!r}")
            colours[colour] = label
        if number is not None:
            numbers[number] = label
    if not 2 <= len(names) <= VOID or len(set(names)) != len(names):
        raise DataError(f"{path}: must hold 2 to {VOID} different class names, one a line; background is one")
    if colours and max(map(max, colours)) > 255:
        raise DataError(f"{path}: has a colour above 255; a colour is red, green and blue from 0 to 255")
    return ClassList(names, colours, numbers or None)


def _table(lines: Sequence[str], path: Path) -> list[tuple[str, Colour | None, int | None]]:
    """Return the rows below a head that names its columns; [] where the first line is none."""
    if not lines:
        return []
    delimiter = "\t" if "\t" in lines[0] else ";" if ";" in lines[0] else ","
    head, *rows = csv.reader(lines, delimiter=delimiter)
    head = [word.strip().casefold() for word in head]
    name = next((head.index(word) for word in NAMES if word in head), None)
    if name is None or len(head) < 2:
        return []
    channels = [next((head.index(word) for word in words if word in head), None) for words in CHANNELS]
    number = next((head.index(word) for word in NUMBERS if word in head), None)
    found = []
    for row in rows:
        try:
            colour = None if None in channels else tuple(int(row[place]) for place in channels)
            found.append((row[name].strip(), colour, None if number is None else int(row[number])))
        except (ValueError, IndexError):
            raise DataError(f"{path}: {delimiter.join(row)!r} does not fit its head {lines[0]!r}") from None
    return found


def _cvat(lines: Sequence[str]) -> list[tuple[str, Colour | None, int | None]]:
    rows = [CVAT.fullmatch(line) for line in lines if not line.startswith("#")]
    return [(row[1].strip(), _colour(row.groups()[1:]), None) for row in rows] if rows and all(rows) else []


def _coloured(lines: Sequence[str]) -> list[tuple[str, Colour | None, int | None]]:
    rows = [PLAIN_COLOUR.fullmatch(line) for line in lines]
    return [(row[1], _colour(row.groups()[1:]), None) for row in rows] if rows and all(rows) else []


def _colour(words: Sequence[str]) -> Colour:
    red, green, blue = map(int, words)
    return red, green, blue

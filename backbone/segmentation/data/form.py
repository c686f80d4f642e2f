"""What the numbers and colours in label files stand for: maps of numbers, labels shifted by one, void, colours."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import ConfigError
from ...common.reading import read_text
from ...common.text import nearest
from ...engine.config import brief, parse_yaml
from ..evaluation import VOID

NUMBERS = 2**16  # what a label file of 16 bits can hold
WRONG = -1
# What a map of numbers calls the label that counts neither in training nor in testing, and all other numbers.
VOID_NAMES, OTHERS = ("void", "ignore"), "*"
_PAIR = re.compile(r"\s*[{'\"]?\s*(\d|-|\*)")


@dataclass(frozen=True, eq=False)
class LabelForm:
    """How the pixels of label files become labels.

    Attributes:
        classes: names by label.
        table: (NUMBERS,) int16: the label of each number in a file, VOID, or WRONG.
        colours: (K,) the colours that have a label, as 0xRRGGBB in order; empty where files hold numbers alone.
        labels: (K,) uint8: their labels.
        hint: how to mend a number that is wrong.
    """

    classes: list[str]
    table: np.ndarray
    colours: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    hint: str = ""

    def of_numbers(self, values: np.ndarray) -> np.ndarray:
        """Return the labels of numbers, int16; WRONG for numbers that have none."""
        if values.dtype == bool:
            values = values.astype(np.uint8)
        if values.dtype.itemsize <= 1 or (values.min() >= 0 and values.max() < NUMBERS):
            return self.table[values]
        outside = (values < 0) | (values >= NUMBERS)
        return np.where(outside, np.int16(WRONG), self.table[np.where(outside, 0, values)])

    def of_colours(self, pixels: np.ndarray) -> np.ndarray:
        """Return the labels of (..., 3) RGB uint8 pixels, int16; WRONG for colours that have none."""
        packed = pack(pixels)
        places = np.searchsorted(self.colours, packed).clip(max=len(self.colours) - 1)
        return np.where(self.colours[places] == packed, self.labels[places].astype(np.int16), np.int16(WRONG))


def pack(colours: np.ndarray) -> np.ndarray:
    """Return (..., 3) RGB colours as numbers 0xRRGGBB, int64."""
    red, green, blue = np.moveaxis(np.asarray(colours, np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def plain_form(classes: Sequence[str]) -> LabelForm:
    """Return the form of files that hold the numbers of classes, and VOID."""
    return make_form(classes)


def make_form(
    classes: Sequence[str],
    *,
    numbers: Mapping[int, int] | None = None,
    others: int = WRONG,
    shifted: bool = False,
    void: Collection[int] = (),
    colours: Mapping[tuple[int, int, int], int] | None = None,
) -> LabelForm:
    """Return a form.

    Args:
        numbers: the label of each number in a file; None where numbers are labels.
        others: with `numbers`, the label of those that it lacks.
        shifted: 0 in a file is void, 1 the first class.
        void: further numbers in a file that are void, besides VOID itself.
        colours: label by colour.
    """
    hint = ""
    if numbers is not None:
        table = np.full(NUMBERS, others, np.int16)
        hint = "; DATA.ID_MAP has no such number: add it, with the number of its class or void"
    else:
        table = np.full(NUMBERS, WRONG, np.int16)
        first = int(shifted)
        table[first : first + len(classes)] = np.arange(len(classes))
        hint = "; DATA.VOID_LABELS names other numbers that are void"
    if shifted:
        table[0] = VOID
    if numbers is None or VOID not in numbers:
        table[VOID] = VOID
    for number, label in (numbers or {}).items():
        table[number] = label
    table[list(void)] = VOID
    known = {int(pack(np.array(colour))): label for colour, label in (colours or {}).items()}
    order = sorted(known)
    labels = np.array([known[colour] for colour in order], np.uint8)
    return LabelForm(list(classes), table, np.array(order, np.int64), labels, hint)


def form_of(
    data: Any,
    classes: Sequence[str],
    colours: Mapping[tuple[int, int, int], int] | None = None,
    numbers: Mapping[int, int] | None = None,
) -> LabelForm:
    """Return the form that the keys of DATA ask for.

    Args:
        colours: label by colour, as the list of the classes has them.
        numbers: label by number, as the data set has them; DATA.ID_MAP stands over it.

    Raises:
        ConfigError: DATA.ID_MAP or DATA.VOID_LABELS cannot be.
        DataError: the file of DATA.ID_MAP cannot be read.
    """
    others = WRONG
    if data.ID_MAP:
        numbers, others = read_map(data.ID_MAP, classes)
    elif numbers is not None and data.REDUCE_ZERO_LABEL:
        raise ConfigError("DATA.REDUCE_ZERO_LABEL: the list of classes has the number of each class; leave the key out")
    return make_form(
        classes,
        numbers=numbers,
        others=others,
        shifted=data.REDUCE_ZERO_LABEL,
        void=data.VOID_LABELS,
        colours=colours,
    )


def read_map(text: str, classes: Sequence[str]) -> tuple[dict[int, int], int]:
    """Return the label of each number in files, and that of all others (WRONG for none).

    Args:
        text: "7: 0, 8: sidewalk, 255: void, *: void", or the name of a YAML or JSON file with such a mapping.

    Raises:
        ConfigError: not such a mapping, or a class that is not there.
        DataError: the file cannot be read.
    """
    if _PAIR.match(text) and ":" in text and not os.path.lexists(text):
        source = "DATA.ID_MAP"
        # YAML takes 7:0 for one word and a bare * for an alias.
        spaced = re.sub(r":(?=\S)", ": ", text.strip().strip("{}"))
        content = parse_yaml("{" + re.sub(r"(?<!['\"])\*(?!['\"])", "'*'", spaced) + "}", source)
    else:
        source = f"DATA.ID_MAP {text}"
        content = parse_yaml(read_text(Path(text)), source)
    numbers, others = {}, WRONG
    for key, value in content.items():
        label = _label(value, classes, source)
        if key == OTHERS:
            others = label
        elif str(key).isdecimal() and int(key) < NUMBERS:
            numbers[int(key)] = label
        elif str(key) != "-1":  # what Cityscapes calls its licence plates: no file holds it
            raise ConfigError(
                f"{source}: {brief(key)} is no number in a label file (0 to {NUMBERS - 1}) and not {OTHERS}"
            )
    if not numbers:
        raise ConfigError(f"{source}: is no mapping of numbers to classes; write it as '7: 0, 8: 1, 255: void'")
    return numbers, others


def _label(value: Any, classes: Sequence[str], source: str) -> int:
    if isinstance(value, str) and value.casefold() in VOID_NAMES and value not in classes:
        return VOID
    if isinstance(value, str) and value in classes:
        return list(classes).index(value)
    if str(value).isdecimal() and (int(value) < len(classes) or int(value) == VOID):
        return int(value)
    hint = nearest(value, [*classes, VOID_NAMES[0]]) if isinstance(value, str) else ""
    raise ConfigError(
        f"{source}: {brief(value)} is none of the {len(classes)} classes (0 to {len(classes) - 1}, or a name) and not "
        f"void{hint}"
    )


def check_form(data: Any, source: str) -> None:
    """Raise ConfigError for keys of label files that cannot be, or that do not go together."""
    wrong = [number for number in data.VOID_LABELS if not (isinstance(number, int) and 0 <= number < NUMBERS)]
    if wrong:
        raise ConfigError(f"{source}: DATA.VOID_LABELS must be whole numbers from 0 to {NUMBERS - 1}, not {wrong[0]}")
    if data.ID_MAP and data.REDUCE_ZERO_LABEL:
        raise ConfigError(f"{source}: DATA.ID_MAP and DATA.REDUCE_ZERO_LABEL both renumber labels; give one of them")
    given = [key for key in ("ID_MAP", "REDUCE_ZERO_LABEL", "VOID_LABELS", "LABEL_SUFFIX") if data[key]]
    if given and data.NAME in ("coco", "mini"):
        raise ConfigError(f"{source}: DATA.{given[0]} is for label images; DATA.NAME {data.NAME} has none")

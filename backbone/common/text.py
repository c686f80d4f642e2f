"""Words for messages and tables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

CELL = 100  # characters in a table's cell


# Known names in a message about one that is none of them.
LISTED = 30


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name nearest to `name`, else the known names, to end a message."""
    known = [str(candidate) for candidate in known]
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    if matches:
        return f"; did you mean {by_lower[matches[0]]!r}?"
    if not known:
        return ""
    shown = sorted(known)[:LISTED]
    while len(", ".join(shown)) > 600:
        shown.pop()
    return f"; known: {', '.join(shown)}"


# What a terminal obeys instead of showing it: control characters but tab and newline, turns of the writing's direction,
# and half characters, which no file takes.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, limit: int | None = None) -> str:
    """Return a text that a terminal only shows: what it would obey becomes visible, as \\x1b for the escape character.

    Args:
        limit: characters a line; a longer line loses its middle, for what is wrong stands first and the remedy last.
    """
    clean = _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    if limit is None or len(clean) <= limit:
        return clean
    return "\n".join(
        line if len(line) <= limit else f"{line[: limit * 2 // 3]} ... {line[len(line) - limit // 3 + 5 :]}"
        for line in clean.split("\n")
    )


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return "1 image", "2 images", "1,000 images"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[object], shown: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(map(str, names[:shown])) + (f" and {more:,} more" if more > 0 else "")


def table(rows: Sequence[Sequence[object]], header: Sequence[str], *, digits: int = 2, limit: int | None = CELL) -> str:
    """Return an aligned Markdown table; numbers stand to the right, floats with `digits` decimals.

    Args:
        limit: characters in a cell; a longer text loses its middle.
    """
    header = [_cell(name, digits, limit) for name in header]
    cells = [[_cell(value, digits, limit) for value in row] for row in rows]
    right = [all(_is_number(row[column]) for row in rows) and bool(rows) for column in range(len(header))]
    widths = [
        max(len(name), *(len(row[i]) for row in cells), 3) if cells else len(name) for i, name in enumerate(header)
    ]

    def line(values: Sequence[str]) -> str:
        columns = zip(values, widths, right)
        padded = [value.rjust(width) if to_right else value.ljust(width) for value, width, to_right in columns]
        return "| " + " | ".join(padded) + " |"

    rules = ["-" * (width + 1) + (":" if to_right else "-") for width, to_right in zip(widths, right)]
    return "\n".join([line(list(header)), f"|{'|'.join(rules)}|", *(line(row) for row in cells)])


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _cell(value: object, digits: int, limit: int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if value != value else f"{value:.{digits}f}"
    # Names come from files: a bar would end the cell, the others would become code, a link or HTML on a page.
    return re.sub(r"[|<`\[]", r"\\\g<0>", printable(" ".join(str(value).split()), limit))

"""Faults of a VOC set: gathered while it is read, and told in one line."""

from __future__ import annotations

from pathlib import Path

from backbone.common.errors import DataError
from backbone.common.text import count

# kind -> what to do. In the order in which they are told.
MENDS = {
    "missing-image": "unpack the images again, or take the id out of the list",
    "missing-annotation": "unpack the annotations again, or take the id out of the list",
    "not-xml": "unpack the annotations again",
    "unsafe-xml": "the official files have none; take it out, or fetch the annotations from their makers",
    "not-an-annotation": "give the annotations in the form of PASCAL VOC",
    "bad-size": "write the image's width and height in pixels under <size>",
    "missing-value": "every object has a <name> and a <bndbox> with xmin, ymin, xmax, ymax",
    "bad-number": "corners are numbers of pixels, <difficult> is 0 or 1",
    "unknown-class": "the classes are the twenty of PASCAL VOC, or the wnids of ImageNet DET; correct the name, or use "
    "--train for classes of your own",
    "nan-box": "write finite numbers",
    "empty-box": "xmax and ymax are at least xmin and ymin; a box includes its last pixel",
    "box-outside": "correct the box or the image's size",
}
# Faults of single boxes. Training can leave such a box out.
BOX_KINDS = ("nan-box", "empty-box", "box-outside")


class Faults:
    """What was found, by kind: how often, and the first example."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, kind: str, example: str) -> None:
        """Note a fault; `example` names file and object."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._first.setdefault(kind, example)

    def raise_first(self, source: Path, *, boxes: bool) -> None:
        """Stop on data that is unfit for use.

        Args:
            source: the list of the split.
            boxes: faults of single boxes count too.

        Raises:
            DataError: names the first fault, how many more there are, and what to do.
        """
        reported = [kind for kind in MENDS if kind in self._counts and (boxes or kind not in BOX_KINDS)]
        if not reported:
            return
        more = sum(self._counts[kind] for kind in reported) - 1
        others = f" (and {count(more, 'more error')})" if more else ""
        raise DataError(f"{source}: {reported[0]}: {self._first[reported[0]]}{others}; {MENDS[reported[0]]}")

"""Every fault of a set with label images in one report."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, DataError
from ..common.files import write_json
from ..common.text import count, some, table
from ..engine.loading import resolve_workers
from .data.check import Findings, class_notes, examine
from .data.own import is_set, open_own
from .data.pairing import label_files, open_labels
from .data.sets import SegmentationSet
from .evaluation import VOID
from .label_command import data_of

LISTED = 10  # faults that are named


@dataclass(frozen=True)
class LabelReport:
    """What is wrong with a set.

    Attributes:
        errors: labels and images that cannot be used, a line each.
        notices: what is only strange.
    """

    images: SegmentationSet
    found: Findings
    errors: list[str]
    notices: list[str]

    @property
    def fine(self) -> bool:
        return not self.errors and len(self.images) > 0

    @property
    def verdict(self) -> str:
        if not len(self.images):
            return "no images: nothing can be learned"
        return f"{count(len(self.errors), 'error')}: mend or leave out what is named" if self.errors else "no errors"

    def lines(self) -> Iterator[str]:
        """Yield the report as text."""
        images, pixels = self.images, self.found.pixels
        total = max(1, int(pixels.sum()))
        yield f"{images.name}: {count(len(images), 'image')}, {count(len(images.classes), 'class', 'classes')}"
        rows = [
            (name, int(pixels[label]), 100 * pixels[label] / total, int(self.found.images[label]))
            for label, name in (*enumerate(images.classes), *([(VOID, "void")] if pixels[VOID] else []))
        ]
        yield f"\n{table(rows, ('class', 'pixels', '% of pixels', 'images'))}\n"
        for what, messages in (("error", self.errors), ("notice", self.notices)):
            if messages:
                yield f"{count(len(messages), what)}:"
                yield from (f"    {message}" for message in messages[:LISTED])
                if len(messages) > LISTED:
                    yield f"    and {len(messages) - LISTED:,} more (--report lists all)"
        yield f"verdict: {self.verdict}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as a record."""
        pixels, images = self.found.pixels, self.found.images
        classes = [
            {"name": name, "label": label, "pixels": int(pixels[label]), "images": int(images[label])}
            for label, name in enumerate(self.images.classes)
        ]
        record = {"set": self.images.name, "images": len(self.images), "classes": classes, "void": int(pixels[VOID])}
        return {**record, "errors": self.errors, "notices": self.notices, "verdict": self.verdict}


def check_labels(
    path: Path, part: str, images: Path | None, data: Any, known: Sequence[str] = (), *, decode: bool = True
) -> LabelReport:
    """Look at every label and image of a set, or of a folder of label images alone.

    Args:
        part, images, data, known: as of `open_own`.
        decode: decode each image, else only its header and end are looked at.

    Raises:
        DataError: there is no such set, or its list of classes is wrong.
    """
    alone = path.is_dir() and not is_set(path, part) and label_files(path)
    opened = open_labels(path, data, known) if alone else open_own(path, part, images, data, known, check=False)
    found = examine(opened, resolve_workers(-1, 1), decode=decode)
    errors, notices = [*found.wrong.values(), *found.unreadable.values()], []
    if not errors and opened.has_truth and len(opened):
        try:
            notices += class_notes(opened, found)
        except DataError as error:
            errors.append(str(error))
    if found.void:
        first = opened.source(found.void[0])
        notices.append(f"{count(len(found.void), 'label image')} void ({VOID}) all over, first {first}")
    unused = getattr(opened, "unused", [])
    if unused:
        notices.append(f"{count(len(unused), 'label image')} without an image: {some(unused, 2)}")
    return LabelReport(opened, found, errors, notices)


def check_sets(arguments: Namespace, parts: Sequence[str]) -> Iterator[LabelReport]:
    """Yield the report of each set of tools/check_data.py's flags; write it, of a single set, as JSON where asked to.

    Raises:
        ConfigError: a flag or key that does not go with label images.
        DataError: as `check_labels`.
    """
    if arguments.fix:
        raise ConfigError(f"--fix {arguments.fix}: mends JSON files; this is a set of label images, mend its files")
    data, known = data_of(arguments.overrides), []
    for part in parts:
        folder = getattr(arguments, f"{part}_images")
        path = Path(getattr(arguments, part))
        report = check_labels(path, part, folder and Path(folder), data, known, decode=arguments.deep)
        known = report.images.classes
        if arguments.report:
            write_json(arguments.report, report.to_json())
        yield report

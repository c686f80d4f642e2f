"""The JSON file as a fault of the data set, and the image folder on disk."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from backbone.common.own_data import leaves_folder

from ...coco_json import files
from .kinds import Fault, Findings
from .matching import Matcher


def read_json(path: Path) -> tuple[object, list[Fault]]:
    """Read a JSON file.

    Returns:
        The value (None when it cannot be read) and the faults of the file as such.

    Raises:
        DataError: there is no such file, or it cannot be opened.
    """
    value, problems = files.read_json(path)
    findings = Findings()
    for problem in problems:
        findings.add_one(*problem)
    return value, findings.faults()


class Folder:
    """The files below an image folder; every folder is listed once, when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._listings: dict[str, frozenset[str]] = {}
        self._matcher = Matcher(self.root)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, a path relative to the folder."""
        # Most names have no folder, and a set has many.
        parent, file = posixpath.split(posixpath.normpath(name)) if "/" in name else ("", name)
        return file in self._listing(parent)

    def find(self, record: dict) -> list[str]:
        """Return the files, by the names that they have here, that an image's record may mean; see `Matcher`."""
        name = record.get("file_name")
        if isinstance(name, str) and name.strip() and not leaves_folder(name) and self.has(name):
            return [name]
        return self._matcher.find(record)

    def _listing(self, parent: str) -> frozenset[str]:
        if parent not in self._listings:
            try:
                with os.scandir(self.root / parent) as entries:
                    self._listings[parent] = frozenset(entry.name for entry in entries if entry.is_file())
            except (OSError, ValueError):
                # ValueError: the name has a zero byte or cannot be encoded, so there is no such folder.
                self._listings[parent] = frozenset()
        return self._listings[parent]

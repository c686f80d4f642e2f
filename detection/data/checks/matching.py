"""Which file of the image folder a record means, as annotation tools write file names."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

# Keys of an image's record that may name its file.
NAME_KEYS = ("file_name", "coco_url")


class File(NamedTuple):
    """A file below the image folder.

    Attributes:
        name: its path relative to the folder, with "/".
        parts: of the path, folded.
    """

    name: str
    parts: tuple[str, ...]


class Matcher:
    """Finds files whose names are written otherwise: with backslashes or percent signs, as a URL, as a path of another
    machine, in other letter case or with letters composed otherwise, or with sub-folders missing or added."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, list[File]] | None = None

    def find(self, record: dict) -> list[str]:
        """Return the files that a record may mean: none, the one, or several that fit alike."""
        for key in NAME_KEYS:
            name = record.get(key)
            for text in spellings(name) if isinstance(name, str) else ():
                if found := self._fitting(text):
                    return found
        return []

    def _fitting(self, text: str) -> list[str]:
        path, elsewhere = _without_root(text)
        parts = _folded(path)
        same_name = self._by_name().get(parts[-1], []) if parts else []
        # Sub-folders may be missing or added: the shorter path is the end of the longer one.
        fitting = [file for file in same_name if _common(parts, file.parts) == min(len(parts), len(file.parts))]
        if not fitting and elsewhere:
            fitting = same_name
        nearest = max((_common(parts, file.parts) for file in fitting), default=0)
        fitting = [file.name for file in fitting if _common(parts, file.parts) == nearest]
        exact = [name for name in fitting if path.endswith(name) or name.endswith(path)]
        return exact if len(exact) == 1 else fitting

    def _by_name(self) -> dict[str, list[File]]:
        if self._files is None:
            self._files = defaultdict(list)
            for name in _names_below(str(self._root)):
                parts = _folded(name)
                self._files[parts[-1]].append(File(name, parts))
        return self._files


def spellings(name: str) -> Iterator[str]:
    """Yield what a name may stand for, with "/" between its parts: itself, without a URL's query and percent signs,
    and what stands in the query (Label Studio: /data/local-files/?d=images/a.jpg)."""
    before, _, query = name.partition("?")
    values = [value for _, value in parse_qsl(query)] if "=" in query else []
    for text in dict.fromkeys((name, unquote(name), before, unquote(before), *values)):
        yield text.replace("\\", "/").strip()


def _without_root(text: str) -> tuple[str, bool]:
    """Return a path without its host, drive, root or "..", and whether it had one: it is of another place then."""
    text = text.removeprefix("./")
    scheme, separator, rest = text.partition("://")
    path = (rest if scheme == "file" else rest.partition("/")[2]) if separator else text
    path = path[2:] if path[1:2] == ":" else path
    path = path.rpartition("../")[2].lstrip("/")
    return path, path != text


def _folded(path: str) -> tuple[str, ...]:
    """Return the parts of a path, equal for names that differ in letter case or in the composition of letters."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    return tuple(part for part in text.split("/") if part not in ("", "."))


def _common(parts: Sequence[str], others: Sequence[str]) -> int:
    """Return how many parts are equal from the end."""
    pairs = zip(reversed(parts), reversed(others))
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(parts), len(others)))


def _names_below(root: str) -> Iterable[str]:
    seen = set()
    for parent, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(parent, root).replace(os.sep, "/")
        for name in sorted(files):
            if not name.startswith(".") and os.path.isfile(os.path.join(parent, name)):
                yield name if below == "." else f"{below}/{name}"

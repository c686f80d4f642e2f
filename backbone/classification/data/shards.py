"""Tar shards in WebDataset's form: members of one name before the first dot are a sample, such as n1.jpg and n1.cls.

The members are listed once; after that an image is read at its place, in any order. So shards are sampled, resumed and
shared out as image files are. Nothing is unpacked: names in an archive are names, never paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np

from ...common.cache import cache_folder
from ...common.errors import DataError, RunError
from ...common.files import write_whole
from ...common.images import is_image_name
from ...common.tar import read_member, tar_members
from ...engine import distributed
from .sets import LabelledImages

LABEL_ENDINGS = ("cls", "cls.txt", "json")
JSON_KEYS = ("label", "cls", "class")
LEAST_BYTES = 2**28  # of all shards, for an index to be kept
COLUMNS = ("shards", "offsets", "sizes", "names", "labels")


@dataclass(frozen=True)
class Index:
    """Where the images of shards lie, a row an image in the order of the archives.

    Attributes:
        shards: (N,) int32 positions in the list of shards; offsets, sizes: (N,) int64 bytes.
        names: (N,) members; labels: (N,) texts, numbers or names of classes.
    """

    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    names: np.ndarray
    labels: np.ndarray


class ImageShards(LabelledImages):
    """Images in tar archives that are read in place."""

    def __init__(self, name: str, classes: Sequence[str], labels: np.ndarray, files: list[Path], index: Index) -> None:
        super().__init__(name, classes, labels)
        self.files = files
        self.index = index

    def content(self, index: int) -> np.ndarray:
        shard = self.files[self.index.shards[index]]
        return read_member(shard, int(self.index.offsets[index]), int(self.index.sizes[index]))

    def place(self, index: int) -> str:
        return f"{self.files[self.index.shards[index]]}: {_shown(str(self.index.names[index]))}"

    def take(self, rows: np.ndarray) -> ImageShards:
        index = Index(*(getattr(self.index, column)[rows] for column in COLUMNS))
        return ImageShards(self.name, self.classes, self.labels[rows], self.files, index)

    def names(self) -> list[str]:
        return [f"{self.files[shard].name}/{name}" for shard, name in zip(self.index.shards, self.index.names)]


def find_shards(root: Path, split: str) -> list[Path]:
    """Return `split`-*.tar, *-`split`-*.tar or `split`/*.tar below a folder, sorted by name."""
    if not root.is_dir():
        return []
    pattern = re.compile(rf"(?:.*[-_.])?{re.escape(Path(split).name)}[-_.].*\.tar|{re.escape(Path(split).name)}\.tar")
    found = [path for path in root.iterdir() if pattern.fullmatch(path.name)]
    if not found and (root / split).is_dir():
        found = [path for path in (root / split).iterdir() if path.suffix == ".tar" and path.name[0] != "."]
    return sorted(found)


def open_shards(files: list[Path], name: str, classes: Sequence[str] | None = None) -> ImageShards:
    """Read the labels of shards; a collective call.

    Args:
        classes: that numbers count and names are of; by default the numbers up to the largest, or the names, sorted.

    Raises:
        DataError: an archive is damaged or compressed, or a sample has no image, no label, or an unknown one.
    """
    index = _index_of(files)
    texts, inverse = np.unique(index.labels, return_inverse=True)
    words = [str(text) for text in texts]
    numbers = [int(word) if word.isdecimal() else -1 for word in words]
    if classes is None:
        numbered = min(numbers) >= 0
        classes = [str(number) for number in range(max(numbers) + 1)] if numbered else sorted(words)
    position = {label: place for place, label in enumerate(classes)}
    # A class may be called by a number; in shards without names a number is a position.
    found = [position.get(word, number if number < len(classes) else -1) for word, number in zip(words, numbers)]
    if min(found) < 0:
        row = int(np.argmax(inverse == found.index(min(found))))
        place = f"{files[index.shards[row]]}: {_shown(str(index.names[row]))}"
        raise DataError(
            f"{place}: its class {_shown(str(index.labels[row]))!r} is none of the {len(classes)} classes; give their "
            "names in order, one a line (DATA.CLASSES)"
        )
    return ImageShards(name, classes, np.array(found, np.int64)[inverse], files, index)


def _index_of(files: list[Path]) -> Index:
    """Return the index of shards, from the user's cache where it is kept and the shards are as they were."""
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if sum(size for _, size, _ in facts) < LEAST_BYTES:
        return _read_index(files)
    try:
        key = sha256(json.dumps(facts).encode()).hexdigest()
        path = cache_folder() / "shards" / f"{files[0].parent.name}-{key[:16]}.npz"
    except DataError:
        return _read_index(files)
    made: list[Index] = []

    def prepare() -> None:
        if _load_index(path) is None:
            made.append(_read_index(files))
            with suppress(RunError):
                write_whole(path, lambda temporary: _save_index(temporary, made[0]))

    distributed.made_once_a_machine(prepare)
    return made[0] if made else _load_index(path) or _read_index(files)


def _save_index(path: Path, index: Index) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: getattr(index, name) for name in COLUMNS})


def _load_index(path: Path) -> Index | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Index(*(file[name] for name in COLUMNS))
    except Exception:  # missing, or damaged in one of numpy's and zipfile's many ways: it is made anew
        return None


def _read_index(files: list[Path]) -> Index:
    rows = [(number, *row) for number, path in enumerate(files) for row in _samples(path)]
    if not rows:
        raise DataError(f"{files[0]}: no image in it; shards hold members such as n1.jpg and n1.cls")
    shards, offsets, sizes, names, labels = zip(*rows)
    whole = (np.array(shards, np.int32), np.array(offsets, np.int64), np.array(sizes, np.int64))
    return Index(*whole, np.array(names), np.array(labels))


def _samples(path: Path) -> Iterator[tuple[int, int, str, str]]:
    """Yield offset, size, member and label of each image of a shard."""
    key, image, label = None, None, None
    for member in chain(tar_members(path, LABEL_ENDINGS), [None]):
        name = member.key if member else None
        if name != key:
            if image is not None and label is None:
                raise DataError(f"{path}: {_shown(image[2])} has no class; put a member {_shown(key)}.cls beside it")
            if image is not None:
                yield *image, label
            key, image, label = name, None, None
        if member and member.ending in LABEL_ENDINGS:
            label = _label_of(member.content, member.ending, path, member.name) or label
        elif member and is_image_name(f"a.{member.ending.rpartition('.')[2]}"):
            if image is not None:
                raise DataError(
                    f"{path}: {_shown(key)} has two images, .{member.ending} is the second; one name, one image"
                )
            image = (member.offset, member.size, member.name)


def _label_of(content: bytes, ending: str, path: Path, name: str) -> str | None:
    """Return the label of a .cls or .json member; None of a JSON without one."""
    try:
        if ending != "json":
            text = content.decode().strip()
        else:
            value = json.loads(content)
            found = [value[key] for key in JSON_KEYS if key in value] if isinstance(value, dict) else [value]
            text = str(found[0]) if found and type(found[0]) in (int, str) else None
            if text is None:
                return None
    except (ValueError, RecursionError):
        text = ""
    if not text:
        raise DataError(f"{path}: {_shown(name)} holds no class; write its number or name")
    return str(int(text)) if text.isdecimal() and text.isascii() else text


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)

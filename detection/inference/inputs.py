"""What a command detects on: image files, folders, patterns, lists, tar shards and videos, listed in little memory."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from backbone import DataError
from backbone.common.images import is_image_name, is_video_name
from backbone.common.images.inputs import files_of, is_searched, nothing_found
from backbone.common.tar import tar_members

from ..data.packed import PackedTexts

# What `predict` adds to the name of an image, and of a video.
PICTURE, CLIP = "_detections.jpg", "_detections.mp4"
SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# Ids of the frames of a video follow those of the one before by this: 92 hours at 30 frames a second.
MOST_FRAMES = 10_000_000
LONGEST_PART = 200  # bytes of a name; file systems take 255
IMAGE, MEMBER, VIDEO, BROKEN = range(4)


class Row(NamedTuple):
    """A file, or a member of an archive.

    Attributes:
        name: of the file, below the folder that all have in common; it goes into the results.
        id: of the image; of a video, that of its first frame is one more.
        path: of the file, or of the archive that the image's `size` bytes stand in at `offset`.
        fault: what is wrong with the archive, of kind BROKEN.
    """

    kind: int
    name: str
    id: int
    path: Path
    offset: int = 0
    size: int = 0
    fault: str = ""


class Inputs(Sequence):
    """Rows in the order in which they are detected on; a Row is made when it is asked for.

    Attributes:
        root: the folder that all files have in common.
        ids: (N,) int64.
    """

    def __init__(self, entries: Iterable[tuple[int, str, str, int, int]], root: Path | None = None) -> None:
        """Take kind, path, member (or fault), offset and size of each."""
        kinds, offsets, sizes = bytearray(), array("q"), array("q")
        self._order: tuple[np.ndarray, np.ndarray] | None = None

        def texts() -> Iterator[str]:
            for kind, path, member, offset, size in entries:
                kinds.append(kind)
                offsets.append(offset)
                sizes.append(size)
                yield path
                yield member

        self._texts = PackedTexts.of(texts())
        self._kinds = np.frombuffer(kinds, np.uint8)
        self._places = np.stack([np.asarray(offsets, np.int64), np.asarray(sizes, np.int64)], axis=1)
        there = (self._path(row) for row in np.flatnonzero(self._kinds != BROKEN).tolist())
        self.root = _common_root(there) if root is None else root
        self._drop_repeated()
        self.ids = self._numbers()

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, index: int) -> Row:
        path, kind = self._path(index), int(self._kinds[index])
        offset, size = self._places[index].tolist()
        fault = self._texts[2 * index + 1] if kind == BROKEN else ""
        return Row(kind, self.name(index), int(self.ids[index]), path, offset, size, fault)

    def _path(self, index: int) -> Path:
        return Path(self._texts[2 * index])

    def name(self, index: int) -> str:
        """Return the name of a row; that of a member is its archive's and its own."""
        return "/".join(filter(None, self._parts(index)))

    def _parts(self, index: int) -> tuple[str, str]:
        """Return the name of the file and that of the member in it, without what would leave a folder; else ""."""
        path, member = self._path(index), ""
        name = (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()
        if self._kinds[index] == MEMBER:
            parts = re.sub(r"[\x00-\x1f\x7f]", "_", self._texts[2 * index + 1]).split("/")
            member = "/".join(part for part in parts if part not in ("", ".", ".."))
        return name, member

    @property
    def has_videos(self) -> bool:
        return bool((self._kinds == VIDEO).any())

    def place(self, id_: int) -> tuple[int, int]:
        """Return the row of an id, and how far behind the row's own it is: of a video's frame, its number from 1."""
        if self._order is None:
            order = np.argsort(self.ids)
            self._order = (order, self.ids[order])
        order, ids = self._order
        row = int(order[np.searchsorted(ids, id_, side="right") - 1])
        return row, id_ - int(self.ids[row])

    def chosen(self, rows: Sequence[int], ids: Sequence[int]) -> Inputs:
        """Return some of the rows, under other ids."""
        kept = object.__new__(Inputs)
        kept._order = None
        kept._texts = PackedTexts.of(self._texts[2 * row + part] for row in rows for part in (0, 1))
        kept._kinds, kept._places = self._kinds[rows], self._places[rows]
        kept.root, kept.ids = self.root, np.array(ids, np.int64)
        return kept

    def digest(self) -> str:
        """Return what is equal for equal rows and ids."""
        made = blake2b(digest_size=16)
        for part in (self._kinds, self._places, self.ids, self._texts.starts, self._texts.content):
            made.update(np.ascontiguousarray(part))
        return made.hexdigest()

    def pictures(self) -> PackedTexts:
        """Return where each row's picture goes below the output folder: its own name, with the suffix only where two
        would be one. The members of a.tar have the folder a_tar."""
        hashes = self._hashes(lambda row: _picture(*self._parts(row), with_suffix=False))
        twice = _repeated(hashes)
        return PackedTexts.of(
            _picture(*self._parts(row), with_suffix=hashes[row] in twice) + (CLIP if kind == VIDEO else PICTURE)
            for row, kind in enumerate(self._kinds.tolist())
        )

    def _hashes(self, of: Callable[[int], str]) -> np.ndarray:
        """Return 64 bits for what `of` makes of each row: a set of all names would be the largest thing here."""
        digests = (blake2b(_bytes(of(row)), digest_size=8).digest() for row in range(len(self)))
        return np.frombuffer(b"".join(digests), np.uint64)

    def _drop_repeated(self) -> None:
        """Keep the first of rows with one name: a file that is listed twice, a member that comes twice."""
        first = np.sort(np.unique(self._hashes(self.name), return_index=True)[1])
        if len(first) < len(self):
            kept = self.chosen(first.tolist(), first.tolist())
            self._texts, self._kinds, self._places = kept._texts, kept._kinds, kept._places

    def _numbers(self) -> np.ndarray:
        """Return COCO image ids: the numbers that the files are named by, as COCO's are, else 1, 2, 3, ...

        Frames of a video are numbered from a multiple of MOST_FRAMES on, behind the images.
        """
        videos = self._kinds == VIDEO
        ids, count = np.zeros(len(self), np.int64), int((~videos).sum())
        ids[~videos] = _named_numbers(self.name(row) for row in np.flatnonzero(~videos)) if count else []
        before = int(ids.max(initial=0)) // MOST_FRAMES + 1 if count else 0
        ids[videos] = (np.arange(len(self) - count) + before) * MOST_FRAMES
        return ids


def list_inputs(pattern: str, output: Path | None) -> Inputs:
    """Return what `pattern` names: a file, a folder (searched through), a glob, a list of these (.txt, .lst, or - for
    standard input), each of images, tar shards and videos.

    Pictures and videos that an earlier call has put into `output` are left out.

    Raises:
        DataError: there is none.
    """
    root = Path(pattern) if os.path.isdir(pattern) else None
    inputs = Inputs(_entries(pattern, output), root)
    if not len(inputs):
        raise nothing_found(pattern)
    return inputs


def _entries(pattern: str, output: Path | None) -> Iterator[tuple[int, str, str, int, int]]:
    own = output.resolve() if output is not None and is_searched(pattern) else None
    for path, fault in files_of(pattern, _is_wanted):
        if own is not None and path.name.endswith((PICTURE, CLIP)) and path.resolve().is_relative_to(own):
            continue
        if fault:
            yield BROKEN, str(path), fault, 0, 0
        elif is_shard(path):
            yield from _members(path)
        else:
            yield VIDEO if is_video_name(path.name) else IMAGE, str(path), "", 0, 0


def is_shard(path: Path) -> bool:
    return path.name.lower().endswith(SHARDS)


def _members(path: Path) -> Iterator[tuple[int, str, str, int, int]]:
    """Yield the images of a shard; what is wrong with it becomes an entry, behind the images before."""
    found = False
    try:
        for member in tar_members(path):
            if is_image_name(f"a.{member.ending.rpartition('.')[2]}"):
                found = True
                yield MEMBER, str(path), member.name, member.offset, member.size
        if not found:
            raise DataError(f"{path}: no image in it; shards hold members such as n1.jpg")
    except DataError as error:
        yield BROKEN, str(path), str(error), 0, 0


def _is_wanted(name: str) -> bool:
    return is_image_name(name) or is_video_name(name) or (not name.startswith(".") and is_shard(Path(name)))


def _common_root(paths: Iterable[Path]) -> Path:
    root: str | None = None
    for path in paths:
        parent = str(path.parent)
        if root is None:
            root = parent
        elif parent != root:
            root = os.path.commonpath([root, parent])
    return Path(root or "")


def _named_numbers(names: Iterable[str]) -> np.ndarray:
    numbers, count = array("q"), 0
    named = True
    for name in names:
        count += 1
        stem = PurePosixPath(name).stem
        named = named and stem.isascii() and stem.isdecimal() and len(stem.lstrip("0")) < 16
        if named:
            numbers.append(int(stem))
    if named and len(np.unique(numbers)) == count:
        return np.asarray(numbers, np.int64)
    return np.arange(1, count + 1)


def _repeated(values: np.ndarray) -> set[int]:
    found, often = np.unique(values, return_counts=True)
    return set(found[often > 1].tolist())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _picture(name: str, member: str, *, with_suffix: bool) -> str:
    """Return the path of a picture without its ending; a part that a file system may not take is cut."""
    path = PurePosixPath(name.replace(".", "_"), member) if member else PurePosixPath(name)
    parts = [*path.parts[:-1], path.name if with_suffix else path.stem]
    for place, part in enumerate(parts):
        if len(_bytes(part)) > LONGEST_PART:
            parts[place] = f"{part[:40]}-{blake2b(_bytes(part), digest_size=6).hexdigest()}"
    return "/".join(parts)

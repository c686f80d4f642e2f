"""A detection set in one file of arrays, read from its JSON once and mapped by all processes of a machine.

The file is a safetensors file: nothing in it runs. It counts only for JSON files of the same content, for the same
settings, and where its own checksum and all image files are right; else the set is read anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from backbone import DataError, RunError
from backbone.common.cache import cache_folder
from backbone.common.files import write_whole, writing
from backbone.engine import distributed
from backbone.engine.record import LOGGER

from .checks.files import Folder
from .packed import PackedTexts
from .segmentations import Segmentations
from .sets import DetectionSet

log = logging.getLogger(LOGGER)

VERSION = 2  # raise it when a change alters what is read from a JSON file
AUTO, OFF = "auto", "off"
# In the user's cache folder: smaller JSON files are read as fast as their cache.
LEAST_BYTES = 16 * 2**20
CHUNK = 2**24  # bytes that are hashed at once

ARRAYS = ("image_ids", "sizes", "starts", "boxes", "labels", "crowd")
PACKED = {"files": PackedTexts, "segmentations": Segmentations}
OPTIONAL = ("keypoints",)
FACTS = ("name", "classes", "category_ids", "keypoint_names", "skipped", "difficult", "warnings")


@dataclass(frozen=True)
class Wanted:
    """What a cached set must be of.

    Attributes:
        json_files, folders: of the set, or of the parts of a joined one.
        settings: what else decides what is read; JSON values.
    """

    json_files: Sequence[Path]
    folders: Sequence[Path]
    settings: Any

    def path(self, where: str) -> Path | None:
        """Return the file that holds it.

        Args:
            where: a folder; "auto": the user's cache folder, for large JSON files; "off": nowhere, which is None.
        """
        # What cannot be read is for the check of the data to name.
        if where in (OFF, "") or not all(file.is_file() and os.access(file, os.R_OK) for file in self.json_files):
            return None
        if where == AUTO and sum(file.stat().st_size for file in self.json_files) < LEAST_BYTES:
            return None
        places = [str(path.resolve()) for path in (*self.json_files, *self.folders)]
        typed = [str(path) for path in (*self.json_files, *self.folders)]
        key = hashlib.sha256(json.dumps([places, typed, self.settings]).encode()).hexdigest()
        folder = cache_folder() / "sets" if where == AUTO else Path(where).expanduser()
        return folder / f"{self.json_files[0].stem}-{key[:16]}.safetensors"

    def content(self) -> str:
        """Return the hash of the whole JSON files: an edit that leaves size and time alone counts too."""
        found = hashlib.sha256(str(VERSION).encode())
        for path in self.json_files:
            with path.open("rb") as file:
                while part := file.read(CHUNK):
                    found.update(part)
        return found.hexdigest()


def load_cached(wanted: Wanted, where: str, build: Callable[[], DetectionSet]) -> DetectionSet:
    """Return the set that `build` makes, mapped from its file where there is one; a collective call.

    One process of each machine checks the file and, where it is missing or does not count, calls `build` and writes it.

    Args:
        where: see `Wanted.path`.

    Raises:
        DataError: what `build` raises, in all processes.
    """
    path = wanted.path(where)
    if path is None:
        return build()
    made: list[DetectionSet] = []

    def prepare() -> str:
        content = wanted.content()
        if not _counts(path, content):
            made.append(build())
            _try_to_write(path, made[0], content)
        return content

    content = distributed.made_once_a_machine(prepare)
    try:
        return read_set(path, content)
    except (DataError, OSError):
        # It could not be written, or this process does not see the other's files.
        return made[0] if made else build()


def _counts(path: Path, content: str) -> bool:
    try:
        found = read_set(path, content, whole=True)
    except FileNotFoundError:
        return False
    except (DataError, OSError) as error:
        log.info("%s: %s; the set is read anew", path, error)
        return False
    folder = Folder(found.folder)
    # What is not there as the set says is for the check of the data to name.
    return found.folder.is_dir() and all(map(folder.has, found.files))


def _try_to_write(path: Path, images: DetectionSet, content: str) -> None:
    try:
        write_set(path, images, content)
    except RunError as error:
        log.warning("the set is not cached: %s; --data-cache chooses another folder, or off", error)


def write_set(path: Path, images: DetectionSet, content: str) -> None:
    """Write a set whole.

    Args:
        content: the hash of what it was read from.

    Raises:
        RunError: it cannot be written.
    """
    present = [*ARRAYS, *(name for name in OPTIONAL if getattr(images, name) is not None)]
    arrays = {name: np.ascontiguousarray(getattr(images, name)) for name in present}
    for name in PACKED:
        if (packed := getattr(images, name)) is not None:
            arrays |= {f"{name}.{part}": array for part, array in vars(packed).items()}
    facts = json.dumps({"folder": str(images.folder), **{name: getattr(images, name) for name in FACTS}})
    head = {"content": content, "facts": facts, "checksum": _checksum(arrays, facts)}
    # Two machines with one folder may write at the same time, with processes of one number.
    own = path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        write_whole(own, lambda temporary: save_file(arrays, temporary, head))
        with writing(path):
            own.replace(path)
    finally:
        with contextlib.suppress(OSError):
            own.unlink(missing_ok=True)


def read_set(path: Path, content: str, *, whole: bool = False) -> DetectionSet:
    """Return the set of a file, its arrays mapped, not to be written to.

    Args:
        content: as given to `write_set`.
        whole: also compare the checksum, which reads all of the file.

    Raises:
        DataError: it is of something else, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            if head.get("content") != content:
                raise DataError("was made from other annotations")
            names = file.keys()
            arrays = {name: file.get_tensor(name).numpy() for name in names}
        if whole and head["checksum"] != _checksum(arrays, head["facts"]):
            raise DataError("is damaged")
        for array in arrays.values():
            array.flags.writeable = False
        facts = json.loads(head["facts"])
        parts: dict[str, dict[str, np.ndarray]] = {name: {} for name in PACKED}
        for key, array in arrays.items():
            name, _, part = key.partition(".")
            if part:
                parts[name][part] = array
        packed = {name: PACKED[name](**values) for name, values in parts.items() if values}
        facts |= {
            "folder": Path(facts["folder"]),
            **{name: tuple(facts[name]) for name in ("keypoint_names", "warnings")},
        }
        present = [*ARRAYS, *(name for name in OPTIONAL if name in arrays)]
        return DetectionSet(**facts, **{name: arrays[name] for name in present}, **packed)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"is damaged ({error})") from None


def _checksum(arrays: dict[str, np.ndarray], facts: str) -> str:
    found = zlib.crc32(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array.reshape(-1).view(np.uint8), found)
    return f"{found:08x}"

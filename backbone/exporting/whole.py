"""Files of an export, one or several: checked before they are there, and never there in part."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..common.files import put, writing


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside `path` for what shall become it; it is gone afterwards, whatever happens.

    Folders above `path` are made too, and removed again when nothing came into them.

    Raises:
        RunError: it cannot be made, or something in it cannot be written.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def put_in_place(folder: Path, path: Path) -> list[Path]:
    """Move the files of `folder` beside `path`; the one named as `path` comes last.

    With several files the former main file goes first: a reader finds the old set, none, or the new set.

    Returns:
        The files, the main one first.
    """
    others = sorted(file for file in folder.iterdir() if file.name != path.name)
    files = [*others, folder / path.name]
    for file in files:
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if others:
        Path(os.path.realpath(path)).unlink(missing_ok=True)
    for file in files:
        put(file, path.with_name(file.name))
    return [path, *(path.with_name(file.name) for file in others)]

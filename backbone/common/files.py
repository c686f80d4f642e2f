"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import RunError

# Names of the temporary files of `write_whole`: .<name>.<process>.tmp
LEFTOVER = re.compile(r"\..+\.\d+\.tmp")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError of what stands inside (disk full, no permission) into a RunError that names `path`."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}; free space or choose another folder"
        ) from None


def write_whole(path: str | Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    A reader, and a crash at any moment, finds the former file or the new one, never a part. It has the mode that any
    new file gets here, whatever `write` gives it (safetensors: 0600).

    Raises:
        RunError: the file cannot be written (disk full, no permission); the former one is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode
            write(temporary)
            if temporary.stat().st_mode != mode:
                temporary.chmod(stat.S_IMODE(mode))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files that processes killed inside `write_whole` have left in `folder`."""
    for path in Path(folder).glob(".*.tmp"):
        if LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole; see `write_whole`."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole; see `write_whole`. NaN becomes null, which every JSON reader takes."""
    write_text(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value

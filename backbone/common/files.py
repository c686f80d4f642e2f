"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import RunError

# Names of the temporary files of `write_whole`: .<name>.<process>.tmp
LEFTOVER = re.compile(r"\..+\.\d+\.tmp")


# An archive above LARGE bytes may not unpack to more than MOST_PACKED times its size; data packs to a half or a tenth.
LARGE, MOST_PACKED = 2**28, 50


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
    new file gets here, whatever `write` gives it (safetensors: 0600). A symbolic link stays: its target is replaced. A
    device, a pipe and an open file (/dev/null, /dev/stdout) stay too: the finished bytes go into them.

    Raises:
        RunError: the file cannot be written (disk full, no permission); the former one is untouched.
    """
    path = Path(path)
    with writing(path):
        if _is_stream(path):
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder, path.name)
                write(temporary)
                _pour(temporary, path)
            return
        target = Path(os.path.realpath(path))
        # Cut, so that a name as long as the file system takes stays within its limit.
        name = os.fsdecode(os.fsencode(target.name)[:200])
        temporary = target.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode
            write(temporary)
            if temporary.stat().st_mode != mode:
                temporary.chmod(stat.S_IMODE(mode))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether what is written to `path` goes to a device, a pipe or a file that is open already (/dev/stdout)."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            raise OSError(errno.EINVAL, "this is a disk or a socket")
        return not stat.S_ISDIR(mode)
    # Whoever has it open would go on writing into the file that was replaced.
    while not os.path.realpath(path.parent).startswith("/proc/"):
        if not path.is_symlink():
            return False
        path = path.parent / os.readlink(path)
    return True


def _pour(source: Path, stream: Path) -> None:
    """Append a file to a stream. A pipe that nobody reads is an error; waiting for a reader might last for ever."""
    sys.stdout.flush()  # what was printed before stands before it, where the stream is standard output
    try:
        descriptor = os.open(stream, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    except OSError as error:
        reason = "this pipe has no reader" if error.errno == errno.ENXIO else error.strerror
        raise OSError(error.errno, reason) from None
    os.set_blocking(descriptor, True)
    with source.open("rb") as content, os.fdopen(descriptor, "wb") as out:
        shutil.copyfileobj(content, out)


def put(temporary: Path, path: Path) -> None:
    """Give a finished file beside `path` its name; what `write_whole` leaves in place stays in place here too.

    Raises:
        OSError: it cannot be written.
    """
    if path.is_symlink() or _is_stream(path):
        write_whole(path, lambda copy: shutil.copyfile(temporary, copy))
    else:
        os.replace(temporary, path)


class _RememberingFile(io.FileIO):
    """Keeps the OSError of a failed write."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


@contextlib.contextmanager
def checked_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for a library that turns an OSError into an error of its own (torch); the OSError comes out.

    Such a library gets no path: with one, torch writes without Python and ends the process where the disk is full.
    """
    raw = _RememberingFile(path, "wb")
    try:
        with io.BufferedWriter(raw) as file:
            yield file
    except Exception:
        if raw.error is not None:
            raise raw.error from None
        raise


def check_archive(path: str | Path) -> None:
    """Check that a ZIP archive (.npz, .pth) is not one of those that unpack to gigabytes of nothing.

    Raises:
        ValueError: it does. A file that is no such archive passes.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size, packed = sum(entry.file_size for entry in archive.infolist()), os.path.getsize(path)
    if size > LARGE and size > MOST_PACKED * packed:
        raise ValueError(f"it unpacks to {size / 2**30:.1f} GiB, {size // packed:,} times its size")


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files that processes killed inside `write_whole` have left in `folder` and below."""
    for path in Path(folder).rglob(".*.tmp"):
        if LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole; see `write_whole`."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole; see `write_whole`. NaN becomes null, which every JSON reader takes."""
    write_text(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_text(value: Any) -> str:
    """Return a value as JSON in one line. NaN becomes null; what is no Unicode, as in some file names, is escaped."""
    value = _without_nan(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if text.isascii() or text.encode("utf-8", "ignore").decode() == text else json.dumps(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value

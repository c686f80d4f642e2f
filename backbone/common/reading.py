"""Files that a user gives, read whole or refused in one line, whatever wrote them."""

from __future__ import annotations

import codecs
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from .errors import DataError
from .files import check_archive

# Longest byte order marks first: UTF-32's begins as UTF-16's does.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LARGEST_TEXT = 2**28  # bytes; the names of ImageNet's training images take a tenth of it
LARGEST_ARRAY = 2**31  # bytes that an array of an archive may unpack to
# What a shell makes of <(command): a pipe that somebody writes to.
PIPES_OF_A_SHELL = ("/dev/fd/", "/proc/self/fd/")


def read_bytes(path: str | Path, *, largest: int | None = None) -> bytes:
    """Read a file.

    Args:
        largest: refuse more bytes than these.

    Raises:
        DataError: missing, no file (a folder, a device, a named pipe, which might never end), too large or unreadable.
    """
    try:
        # A named pipe would block here until somebody writes to it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            mode = os.fstat(handle).st_mode
            from_shell = stat.S_ISFIFO(mode) and str(path).startswith(PIPES_OF_A_SHELL)
            if from_shell:
                os.set_blocking(handle, True)
            content = None
            if from_shell or stat.S_ISREG(mode):
                with open(handle, "rb", closefd=False) as file:
                    content = file.read(-1 if largest is None else largest + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        # ValueError: the name has a zero byte or cannot be encoded.
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if content is None:
        raise DataError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}; give a file")
    if largest is not None and len(content) > largest:
        raise DataError(f"{path}: has more than {largest:,} bytes, too many for its kind; is it the right file?")
    return content


def decode_text(content: bytes) -> str:
    """Decode a text: UTF-8, or what its byte order mark says; the mark is taken off.

    Raises:
        UnicodeError: it is neither, or has zero bytes; the message says where and what to do.
    """
    mark, encoding = next(((mark, name) for mark, name in MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise UnicodeError(
            f"line {line}: byte 0x{byte:02x} is no text in {encoding.upper()}; save it as UTF-8"
        ) from None
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UnicodeError(f"line {line}: has a zero byte, so it is no text; save it as text in UTF-8")
    return text


def read_text(path: str | Path, *, largest: int | None = LARGEST_TEXT) -> str:
    """Read a text file: UTF-8, or what its byte order mark says.

    Raises:
        DataError: as `read_bytes`, or no text; names file and line.
    """
    try:
        return decode_text(read_bytes(path, largest=largest))
    except UnicodeError as error:
        raise DataError(f"{path}, {error}") from None


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file; see `read_text` and `lines_of`."""
    return lines_of(read_text(path))


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, without what ends them and without blanks around them.

    Only line ends divide, as in an editor: str.splitlines would also divide at a form feed or at U+2028.
    """
    return [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file; each is unpacked when it is asked for. Nothing pickled is read.

    Raises:
        DataError: here, no readable archive; when an array is asked for, it is damaged, encrypted, of objects or larger
            than LARGEST_ARRAY.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            check_archive(path)
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: cannot be read as an .npz archive: {error}; fetch or write it again") from None
        self._members = {member.filename.removesuffix(".npy"): member for member in members}

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        try:
            if member.flag_bits & 1:
                raise ValueError("is encrypted")
            if member.file_size > LARGEST_ARRAY:
                raise ValueError(f"unpacks to {member.file_size:,} bytes")
            with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        # RuntimeError, and NotImplementedError among them: packed in a way that Python does not know.
        except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self.path}: the array {name!r} cannot be read: {error}; write the file again") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

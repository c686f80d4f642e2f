"""What the image decoders write to standard error: C libraries tell of damaged data nowhere else."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

HARMLESS = ("libpng warning", "iCCP", "sRGB")


class Complaints:
    """Reads what has come since the last reading."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read = 0

    def new(self) -> str:
        """Return the first new line that tells of damage, or ""."""
        end = os.fstat(self._file.fileno()).st_size
        text = os.pread(self._file.fileno(), end - self._read, self._read).decode(errors="replace")
        self._read = end
        lines = (" ".join(line.split()) for line in text.splitlines())
        return next((line for line in lines if line and not any(word in line for word in HARMLESS)), "")


def _scratch() -> IO[bytes]:
    """Open a file in memory, where the system has them: no disk must be writable to look at a data set."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("complaints"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def captured_complaints() -> Iterator[tuple[Complaints, IO[str]]]:
    """Turn the process's standard error to a file.

    Yields:
        The complaints so far, and a text stream to where standard error went before, for a progress bar.
    """
    sys.stderr.flush()
    before = os.dup(2)
    with _scratch() as file, os.fdopen(before, "w") as terminal:
        os.dup2(file.fileno(), 2)
        try:
            yield Complaints(file), terminal
        finally:
            os.dup2(before, 2)

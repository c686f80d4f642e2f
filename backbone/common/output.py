"""Standard output whose reader may go away before the work is done, as `head` does."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from .text import printable


class PatientOutput:
    """Standard output that outlives its reader: when that goes away (head, less), the work goes on without it.

    Names come from files of all kinds: what a terminal would obey in them is shown instead, see `printable`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(printable(text))
        except BrokenPipeError:
            self._turn_away()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._turn_away()

    def _turn_away(self) -> None:
        # The descriptor itself: what the stream still holds goes there too, when the interpreter ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def patient_output() -> Iterator[None]:
    """Let what is printed go nowhere once nobody reads it; a result must not be lost with its table."""
    stream = sys.stdout
    sys.stdout = PatientOutput(stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = stream

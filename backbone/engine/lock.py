"""One run at a time writes a run folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..common.errors import RunError

# Loader processes hold the lock of a run that was killed until they notice, a few seconds later.
PATIENCE = 10.0


@contextlib.contextmanager
def locked(folder: Path, *, patience: float | None = None) -> Iterator[None]:
    """Hold the folder for this process and those it starts. The end of the processes, however it comes, frees it.

    Where the system has no such locks (Windows, some network file systems) nothing is held.

    Args:
        folder: exists.
        patience: seconds to wait for the run that holds it; PATIENCE for None.

    Raises:
        RunError: another run holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    # The folder itself, so that no file of the lock's own is left in it.
    handle = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + (PATIENCE if patience is None else patience)
    try:
        while not _taken(fcntl, handle):
            if time.monotonic() > until:
                raise RunError(f"{folder}: another run is writing into it; wait for its end or stop it, then try again")
            time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def _taken(fcntl, handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks.
        return True
    return True

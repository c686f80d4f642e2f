"""One run at a time writes a run folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..common.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Loader processes hold the lock of a run that was killed until they notice, a few seconds later.
PATIENCE = 10.0


class Lock:
    """Holds a folder by an open descriptor of it."""

    def __init__(self, handle: int, folder: Path, patience: float) -> None:
        self.handle = handle
        self.folder = folder
        self.patience = patience

    def take(self, *, shared: bool) -> None:
        """Take the lock: alone, or with others that share it; raises RunError when another run holds it."""
        until = time.monotonic() + self.patience
        while not _taken(self.handle, shared=shared):
            if time.monotonic() > until:
                raise RunError(
                    f"{self.folder}: another run is writing into it; wait for its end or stop it, then try again"
                )
            time.sleep(0.2)

    def share(self) -> None:
        """Let other processes of the run hold it too."""
        self.take(shared=True)


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False, patience: float | None = None) -> Iterator[Lock]:
    """Hold the folder for this process and those it forks. The end of the processes, however it comes, frees it.

    Where the system has no such locks (Windows, some network file systems) nothing is held.

    Args:
        folder: exists.
        shared: beside others that share it; nobody can hold it alone meanwhile.
        patience: seconds to wait for the run that holds it; PATIENCE for None.

    Raises:
        RunError: another run holds it.
    """
    # The folder itself, so that no file of the lock's own is left in it.
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else -1
    try:
        lock = Lock(handle, folder, PATIENCE if patience is None else patience)
        lock.take(shared=shared)
        yield lock
    finally:
        if handle >= 0:
            os.close(handle)


def _taken(handle: int, *, shared: bool) -> bool:
    if handle < 0:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks.
        return True
    return True

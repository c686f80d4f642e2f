"""Processes of a run that were killed or cannot be reached: one line names them, in place of torch's errors."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import torch.distributed as dist

from ..common.errors import PeerError, ProcessError, UserError
from . import joining
from .distributed import is_distributed


@dataclass(frozen=True)
class Advice:
    """What a line about a lost process ends with.

    Attributes:
        go_on: how to go on; less_memory: what to lower where memory ran out.
    """

    go_on: str = "--resume goes on from the newest checkpoint"
    less_memory: str = "SOLVER.IMS_PER_BATCH or DATALOADER.NUM_WORKERS"


TRAINING = Advice()
MEMORY = {
    "SIGKILL": "most likely because memory ran out: lower {less_memory}",
    "SIGBUS": "most likely because shared memory (/dev/shm) is full: lower DATALOADER.NUM_WORKERS",
}
# How torch's DataLoader speaks of a worker that is gone: raised by its SIGCHLD handler, anywhere, or by the loader.
LOADER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: (\w[\w ]*\w)|exited)")
# How gloo, NCCL and the store speak of a peer that is gone.
PEER = re.compile(
    r"gloo|NCCL|Connection (closed|reset)|Broken pipe|[Tt]imed out|[Ss]ocket Timeout|failed to recv|TCPStore|DistStore"
)


@contextlib.contextmanager
def named(advice: Advice = TRAINING) -> Iterator[None]:
    """Turn torch's errors about a lost process into a ProcessError."""
    try:
        yield
    except UserError:
        raise
    except RuntimeError as error:
        text = str(error)
        if found := LOADER.search(text):
            raise ProcessError(_loader(found, advice)) from None
        if is_distributed() and (isinstance(error, dist.DistError) or PEER.search(text)):
            raise PeerError(f"{joining.lost_peers()}; {advice.go_on}") from None
        raise


def loader_error(pid: int, exitcode: int) -> RuntimeError:
    """Return torch's error about a loader process that has ended, which `named` turns into a line.

    Args:
        exitcode: as multiprocessing gives it.
    """
    how = f"is killed by signal: {signal.strsignal(-exitcode)}" if exitcode < 0 else "exited"
    return RuntimeError(f"DataLoader worker (pid {pid}) {how}. ")


def _loader(found: re.Match[str], advice: Advice) -> str:
    process = f"loader process {found[1]}"
    if found[3] is None:
        return f"{process} ended before its time, perhaps because memory ran out; {advice.go_on}"
    # torch has the system's words for the signal ("Killed").
    names = {signal.strsignal(number): signal.Signals(number).name for number in signal.Signals}
    return killed(process, names.get(found[3], found[3]), advice)


def killed(process: str, name: str, advice: Advice = TRAINING) -> str:
    """Return the line about a process that a signal ended."""
    why = f", {MEMORY[name].format(less_memory=advice.less_memory)}" if name in MEMORY else ""
    return f"{process} was killed ({name}){why}; {advice.go_on}"

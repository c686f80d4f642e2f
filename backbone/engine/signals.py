"""Signals that ask a run to end: SIGTERM, Ctrl-C and SIGUSR1. The run writes a checkpoint first.

They often reach every process of the run at once (a terminal, `timeout`, SLURM), so the loader's processes leave them
to the run, and a signal that comes twice at one time counts once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
# Signals nearer than this are one: a launcher hands on what its processes get too.
ONE_ACT = 1.0
# Seconds from the signal to the end of the step, in a run of several processes. A process that waits for another one
# inside torch cannot look at a signal at all.
PATIENCE = 300.0
# What the thread that looks at signals reads at its end; no signal has this number.
NO_MORE = b"\0"


class EndRequest:
    """Notes the first signal that asks for the end; a second one ends the process at once.

    Attributes:
        signum: the signal, 0 until there is one.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._agreed = threading.Event()

    @contextlib.contextmanager
    def listening(self, *, now: Callable[[], None], watched: bool) -> Iterator[None]:
        """Note signals while the context lasts. Python takes them in its main thread alone; elsewhere nothing is done.

        Args:
            now: called at each signal; it may end the run by an exception.
            watched: end the process from a thread where it cannot be reached for PATIENCE, or gets a second signal.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        first = 0.0

        def note(signum: int, _frame: object) -> None:
            nonlocal first
            if not self.signum:
                self.signum, first = signum, time.monotonic()
            elif time.monotonic() - first > ONE_ACT:
                raise ending(signum)
            now()

        before = {signum: signal.signal(signum, note) for signum in ENDING}
        try:
            with self._watch() if watched else contextlib.nullcontext():
                yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def agreed(self) -> None:
        """Say that all processes have agreed on the end, which takes what it takes from here on."""
        self._agreed.set()

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python writes each signal's number there at once, whatever the main thread is waiting for.
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._wait_for_signals, args=(reader,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            # Not by closing it: loader processes have the writer too.
            os.write(writer, NO_MORE)
            thread.join()
            os.close(writer)
            os.close(reader)

    def _wait_for_signals(self, reader: int) -> None:
        signum = self._next(reader)
        if not signum:
            return
        first = time.monotonic()
        timer = threading.Timer(PATIENCE, self._give_up, (signum,))
        timer.daemon = True
        timer.start()
        while again := self._next(reader):
            if time.monotonic() - first > ONE_ACT:
                os._exit(128 + again)
        timer.cancel()

    def _next(self, reader: int) -> int:
        """Return the next signal that asks for the end; 0 when there will be none."""
        while (number := os.read(reader, 1)) != NO_MORE:
            if number[0] in ENDING:
                return number[0]
        return 0

    def _give_up(self, signum: int) -> None:
        if not self._agreed.is_set():
            name = signal.Signals(signum).name
            os.write(2, f"{name}: no end of the step in {PATIENCE:.0f} s, ended without a checkpoint\n".encode())
            os._exit(128 + signum)


def ending(signum: int) -> BaseException:
    """Return what ends a process as the signal asks: KeyboardInterrupt for Ctrl-C, else SystemExit with the status
    that a shell would report."""
    return KeyboardInterrupt() if signum == signal.SIGINT else SystemExit(128 + signum)


def leave_to_the_run() -> None:
    """Called in a loader process: ignore signals that ask the run to end. Its own process may still end it.

    A worker that died of them would take the run with it before its checkpoint is written.
    """
    signal.set_wakeup_fd(-1)
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return
    # An ignored signal reaches nobody; one that is blocked waits for the thread, which sees who has sent it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def start_tracker() -> None:
    """Start the process that removes semaphores (Python's resource tracker) so that it outlives SIGUSR1, as it does the
    other signals that every process of a run gets."""
    if not hasattr(signal, "SIGUSR1") or threading.current_thread() is not threading.main_thread():
        return
    from multiprocessing import resource_tracker

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    resource_tracker.ensure_running()
    signal.signal(signal.SIGUSR1, before)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep signals waiting, in this process and in those that it starts meanwhile, until each calls `let_in`: a process
    that is still importing would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        let_in()


def let_in() -> None:
    """Take signals again; see `held_back`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def end_with(parent: int, signum: int) -> None:
    """Let this process get a signal when its parent's life ends, however that comes (Linux; elsewhere nothing is done).

    Args:
        parent: process id of the launcher.
    """
    # torch's own call of prctl(PR_SET_PDEATHSIG), which is nothing on other systems.
    from torch.multiprocessing import _prctl_pr_set_pdeathsig

    _prctl_pr_set_pdeathsig(signum)
    if os.getppid() != parent:
        os._exit(1)

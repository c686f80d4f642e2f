"""Runs the commands of rows: each in a process of its own, several at once, skipping what is done."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from backbone.common.commands import command_line
from backbone.common.waiting import duration
from backbone.engine.checkpoint import FINAL

from .records import lacking, read_run
from .rows import Row, Step

MISTAKE = 2
TERMINATED = 128 + signal.SIGTERM
LAST_LINES = 40


@dataclass(frozen=True)
class Calls:
    """How commands are made from steps.

    Attributes:
        runs: folder of the run folders.
        flags: those that every command gets, such as --device.
        train: KEY VALUE overrides of trainings, by config; tests get `test`.
        test: KEY VALUE overrides of tests.
        weights: files of pretrained weights, by architecture.
    """

    runs: Path
    flags: tuple[str, ...]
    train: dict[str, tuple[str, ...]]
    test: tuple[str, ...]
    weights: dict[str, str] = field(default_factory=dict)

    def command(self, row: Row, step: Step, *, resume: bool) -> list[str]:
        """Return the command line of one step."""
        parts = [*command_line(row.kind.tool), *step.arguments]
        parts += ["--output-dir", str(self.runs / step.folder)]
        weights = self._weights(step)
        if weights is not None:
            parts += ["--weights", weights]
        if resume:
            parts.append("--resume")
        overrides = self.train[row.config_of(step)] if step.weights_of is None else self.test
        for key, folders in step.weights_in:
            overrides = (*overrides, key, str(tuple(self._final(folder) for folder in folders)))
        for key, network in step.networks_in:
            if network in self.weights and key not in overrides[::2]:
                overrides = (*overrides, key, str((self.weights[network],)))
        return [*parts, *self.flags, *overrides, *step.overrides]

    def _weights(self, step: Step) -> str | None:
        of = step.weights_of or step.starts_from
        return self.weights.get(step.network) if of is None else self._final(of)

    def _final(self, folder: str) -> str:
        return str(self.runs / folder / FINAL)


@dataclass(frozen=True)
class Outcome:
    """How the commands of a row ended: status 0, or that of the one that failed with its last line."""

    row: Row
    status: int = 0
    message: str = ""


class Runner:
    """Runs rows.

    Args:
        say: takes one line of progress; called from several threads, one line at a time.
        jobs: rows at once.
    """

    def __init__(self, calls: Calls, say: Callable[[str], None], *, jobs: int = 1) -> None:
        self.calls = calls
        self.jobs = jobs
        self._say = say
        self._lock = threading.Lock()
        self._folders: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False
        # Trainings that failed just now: a row that needs one of them fails with it.
        self._failed: dict[str, tuple[int, str]] = {}

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        """Run what the rows lack, and return how the rows ended.

        Once as many rows as run at once have ended, all for a user's mistake, the others are not begun, if they are on
        the same data: they would make the same one.
        """
        outcomes: list[Outcome] = []

        def run_row(place: int, row: Row) -> None:
            with self._lock:
                hopeless = len(outcomes) >= self.jobs and all(_same_mistake(done, row) for done in outcomes)
            if hopeless or self._stopped:
                return
            began = time.monotonic()
            self.say(row, f"row          {place} of {len(rows)}: {row.name}")
            outcome = self._row(row)
            failed = "stopped" if self._stopped else "failed"
            ended = failed if outcome.status else "done"
            self.say(row, f"row          {row.name}: {ended} after {duration(time.monotonic() - began)}")
            with self._lock:
                outcomes.append(outcome)

        with ThreadPoolExecutor(self.jobs) as pool, self._ending():
            for future in [pool.submit(run_row, place, row) for place, row in enumerate(rows, 1)]:
                future.result()
        return outcomes

    def _row(self, row: Row) -> Outcome:
        for step in row.trainings:
            status, message = self._train(row, step)
            if status:
                return Outcome(row, status, message)
        for step in row.tests:
            if not self._lacking(row):
                break
            with self._folders[step.folder]:
                status, message = self._call(row, step, resume=False)
            if status:
                return Outcome(row, status, message)
        missing = self._lacking(row)
        if missing:
            return Outcome(row, 1, f"its commands ended well, but left no {', '.join(missing)} in results.json")
        return Outcome(row)

    def _train(self, row: Row, step: Step) -> tuple[int, str]:
        """Run or resume a training unless it has ended; return its status and the last line that it said."""
        with self._folders[step.folder]:
            if step.folder in self._failed:
                return self._failed[step.folder]
            run = read_run(self.calls.runs / step.folder)
            if run.ended:
                self.say(row, f"trained already: {run.folder}")
                return 0, ""
            status, message = self._call(row, step, resume=run.begun)
            if status:
                self._failed[step.folder] = (status, message)
            return status, message

    def _lacking(self, row: Row) -> list[str]:
        runs = self.calls.runs
        return lacking(row, read_run(runs / row.train.folder), runs)

    def _call(self, row: Row, step: Step, *, resume: bool) -> tuple[int, str]:
        """Run one command; return its status and the last line that it said."""
        command = self.calls.command(row, step, resume=resume)
        self.say(row, "$ " + subprocess.list2cmdline(command))
        last: deque[str] = deque(maxlen=LAST_LINES)
        with self._lock:
            if self._stopped:
                return TERMINATED, "stopped"
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            self._processes.add(process)
        for line in process.stdout:
            last.append(line.rstrip())
            self.say(row, line.rstrip())
        status = process.wait()
        with self._lock:
            self._processes.discard(process)
        shown = next((line.strip() for line in reversed(last) if line.strip()), "said nothing")
        if status < 0:
            return 128 - status, f"{_ended_by(-status)}; the same command goes on from there; it said last: {shown}"
        return status, shown.removeprefix(f"{row.kind.tool}: error: ")

    def say(self, row: Row, line: str) -> None:
        """Pass a line on, with the row's name before it where several run at once."""
        with self._lock:
            self._say(f"{row.name:<12} | {line}" if self.jobs > 1 else line)

    # -- the end of this process is the end of its commands

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """On SIGTERM, Ctrl-C or a defect, end the commands too; each writes a checkpoint first."""
        former = None
        if threading.current_thread() is threading.main_thread():
            former = signal.signal(signal.SIGTERM, _leave)
        try:
            yield
        except BaseException:
            self._stop()
            raise
        finally:
            if former is not None:
                signal.signal(signal.SIGTERM, former)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.terminate()


def _same_mistake(done: Outcome, row: Row) -> bool:
    return done.status == MISTAKE and done.row.data == row.data


def _ended_by(number: int) -> str:
    """Return what a signal's number means; the system ends what needs too much memory with SIGKILL."""
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        return f"ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
    return f"ended by signal {number}"


def _leave(number: int, frame: object) -> None:
    raise SystemExit(TERMINATED)

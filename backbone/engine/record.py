"""What a run leaves behind besides weights: log.txt, metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import DataError, RunError
from ..common.files import write_text, writing
from ..common.output import PatientOutput
from ..common.reading import read_bytes
from ..common.text import printable

LOG, METRICS, CONFIG, RESULTS = "log.txt", "metrics.jsonl", "config.yaml", "results.json"
LONGEST_LINE = 4000  # characters in the log
LOGGER = "backbone"
# What every line about training steps has in metrics.jsonl, and no line about an evaluation.
LOSS = "total_loss"


class _LogFile(logging.FileHandler):
    """log.txt. What cannot be written ends the run in one line; logging itself would print a traceback and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        with writing(self.baseFilename):
            raise error


class _Formatter(logging.Formatter):
    """Shows what a terminal would obey in the names that a line holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), LONGEST_LINE)


def start_logging(folder: Path | None, *, quiet: bool = False) -> logging.Logger:
    """Send the project's log to the terminal and, with a folder, to log.txt in it; return the logger."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    stop_logging()
    terminal = logging.StreamHandler(PatientOutput(sys.stdout))
    terminal.setFormatter(_Formatter("%(message)s"))
    terminal.addFilter(lambda record: not getattr(record, "file_only", False))
    terminal.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.addHandler(terminal)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = _LogFile(folder / LOG, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{folder}: the output folder cannot be written: {error.strerror or error}") from None
        file.setFormatter(_Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        file.addFilter(lambda record: not getattr(record, "terminal_only", False))
        logger.addHandler(file)
    return logger


def stop_logging() -> None:
    """Take the project's log from the terminal and close log.txt."""
    logger = logging.getLogger(LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        # A line that found the disk full is still waiting in the handler's buffer.
        with contextlib.suppress(OSError):
            handler.close()


class RunLogger:
    """Takes what a run reports, in its main process. Built as `make(folder, after)`: the run folder, and the number of
    steps that a resumed run has done (0 for a new one). A logger of one's own overrides what it needs.
    """

    def config(self, values: dict[str, Any]) -> None:
        """Take the whole config, as nested plain values; called once."""

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Take numbers by name: "train/total_loss" of a step, "bbox/AP" of an evaluation."""

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Take an (H, W, 3) RGB uint8 picture."""

    def close(self, *, finished: bool = True) -> None:
        """Called once; `finished` says whether the run took its last step."""


class MetricsFile(RunLogger):
    """metrics.jsonl: one JSON object a line, each with its `iteration`.

    Args:
        after: lines behind this iteration belong to work that was lost with a crash; they are taken out.
        evaluated: the evaluation at this iteration is not done again; else its line is taken out too.

    Raises:
        RunError: it cannot be written; the constructor and `scalars`.
    """

    def __init__(self, folder: Path, *, after: int, evaluated: bool = True) -> None:
        self.path = folder / METRICS
        kept = [line for line in read_metrics(self.path) if line["iteration"] <= after] if after else []
        if not evaluated:
            # A training's line has a loss.
            kept = [line for line in kept if line["iteration"] < after or LOSS in line]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Write a line; numbers of training steps go without their "train/"."""
        named = {name.removeprefix("train/"): value for name, value in values.items()}
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **named}) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl, none where there is no such file.

    A last line that a crash cut off is left out.

    Raises:
        RunError: another line is no JSON object with an iteration, or the file cannot be read.
    """
    if not os.path.lexists(path):
        return []
    try:
        texts = read_bytes(path).decode("utf-8", "replace").rstrip("\0\n").split("\n")
    except DataError as error:
        raise RunError(str(error)) from None
    lines = [_parse_line(text) for text in texts]
    if lines[-1] is None:
        if texts[-1]:
            logging.getLogger(LOGGER).warning("%s: its last line was cut off; it is left out", path)
        lines.pop()
    if None in lines:
        raise RunError(
            f"{path}, line {lines.index(None) + 1}: no JSON object with an iteration; mend the line, or move the file "
            "away to go on without the metrics so far"
        )
    return lines


def _parse_line(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("iteration"), int) else None


class Events(RunLogger):
    """TensorBoard events in the run folder. A thread writes them, so a full disk raises RunError in a later call."""

    def __init__(self, folder: Path, after: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self.excepthook = threading.excepthook
        threading.excepthook = self._leave_to_the_caller
        with writing(folder):
            self.writer = SummaryWriter(str(folder), purge_step=after + 1 if after else None)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        with writing(self.folder):
            for name, value in values.items():
                self.writer.add_scalar(name, value, iteration)

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Add an (H, W, 3) RGB uint8 picture."""
        with writing(self.folder):
            self.writer.add_image(name, picture, iteration, dataformats="HWC")

    def close(self, *, finished: bool = True) -> None:
        try:
            with writing(self.folder):
                self.writer.close()
        finally:
            threading.excepthook = self.excepthook

    def _leave_to_the_caller(self, failure: threading.ExceptHookArgs) -> None:
        """Print nothing of an OSError in TensorBoard's thread: it keeps the error for the next call."""
        of_writer = type(failure.thread).__module__.startswith("tensorboard.")
        if not (of_writer and isinstance(failure.exc_value, OSError)):
            self.excepthook(failure)

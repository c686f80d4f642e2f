"""What a run leaves behind besides weights: log.txt, metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError

LOG, METRICS, CONFIG, RESULTS = "log.txt", "metrics.jsonl", "config.yaml", "results.json"
LOGGER = "backbone"


def start_logging(folder: Path | None, *, quiet: bool = False) -> logging.Logger:
    """Send the project's log to the terminal and, with a folder, to log.txt in it; return the logger."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    terminal.addFilter(lambda record: not getattr(record, "file_only", False))
    terminal.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.addHandler(terminal)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(folder / LOG, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{folder}: the output folder cannot be written: {error.strerror or error}") from None
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        file.addFilter(lambda record: not getattr(record, "terminal_only", False))
        logger.addHandler(file)
    return logger


class MetricsFile:
    """metrics.jsonl: one JSON object a line, each with its `iteration`.

    Args:
        after: lines behind this iteration belong to work that was lost with a crash; they are taken out.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        self.path = folder / METRICS
        kept = [line for line in read_metrics(self.path) if line["iteration"] <= after] if after else []
        with self.path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)

    def write(self, values: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; a last line that a crash cut off is left out."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("iteration"), int)]


class Events:
    """TensorBoard events in the run folder."""

    def __init__(self, folder: Path, *, after: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=after + 1 if after else None)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)

    def picture(self, name: str, picture: np.ndarray, iteration: int) -> None:
        """Add an (H, W, 3) RGB uint8 picture."""
        self.writer.add_image(name, picture, iteration, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()

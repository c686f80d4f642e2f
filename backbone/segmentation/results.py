"""What a segmentation run leaves at its end: results.json, a table and pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.confusion import most_confused, row_shares
from ..common.text import table
from ..engine.record import LOGGER
from ..engine.results import PICTURES, say_where, write_pictures, write_results, write_table
from .evaluation import figures_record, metrics
from .task import SegmentationTask

log = logging.getLogger(LOGGER)
SHEET = "segmentation.jpg"
SUMMARY = {
    "mIoU": "mean IoU",
    "mDice": "mean Dice",
    "mACC": "mean accuracy",
    "mPrecision": "mean precision",
    "pACC": "pixel accuracy",
    "fwIoU": "frequency-weighted IoU",
}
BY_CLASS = {"IoU": "IoU %", "Dice": "Dice %", "ACC": "accuracy %", "Precision": "precision %"}
# Classes of which a whole matrix fits on a terminal's line, and confusions that stand for it beyond.
MATRIX_CLASSES, CONFUSIONS = 12, 10


def figures_table(name: str, classes: Sequence[str], counts: np.ndarray) -> str:
    """Return the figures of a confusion matrix in per cent, over all and by class, and what is taken for what.

    Args:
        counts: as of `evaluation.metrics`.
    """
    values = {key: 100 * value for key, value in metrics(counts, classes).items()}
    whole = table([(title, values[key]) for key, title in SUMMARY.items()], (name, "%"))
    pixels = counts.sum(1).tolist()
    rows = [(one, *(values[f"{key}-{one}"] for key in BY_CLASS), number) for one, number in zip(classes, pixels)]
    by_class = table(rows, ("class", *BY_CLASS.values(), "pixels"))
    return f"{whole}\n\n{by_class}\n\n{_confusions(classes, counts)}"


def _confusions(classes: Sequence[str], counts: np.ndarray) -> str:
    shares = 100 * row_shares(counts)
    if len(classes) <= MATRIX_CLASSES:
        head = [*classes, "none"][: counts.shape[1]]
        rows = [(name, *row.tolist()) for name, row in zip(classes, shares)]
        return f"Each row in % of its true pixels:\n\n{table(rows, ('truth ↓ prediction →', *head), digits=1)}"
    found = most_confused(counts, len(classes), CONFUSIONS)
    rows = [(classes[truth], classes[wrong], shares[truth, wrong], number) for truth, wrong, number in found]
    return f"Most confused:\n\n{table(rows, ('truth', 'prediction', '% of the class', 'pixels'))}"


def report(task: SegmentationTask, config: Any, *, extra: dict[str, Any], json: Path | None) -> None:
    """Write results.json, results.md and pictures into OUTPUT_DIR; print the table and where they are."""
    folder = Path(config.OUTPUT_DIR)
    counts, classes = task.confusion.counts.numpy(), task.test.classes
    results = figures_record(counts, classes) if task.metrics else {}
    left_out = [str(task.test.path(index)) for index in sorted(task.left_out)]
    facts = {"network": config.MODEL.NAME, "head": config.MODEL.HEAD.NAME, "images": len(task.test)}
    write_results(config, {**results, **extra, **facts, "left_out": left_out}, *([json] if json else []))
    if results:
        write_table(config, figures_table(task.test.name, classes, counts))
    say_where(config, "" if results else "no labels: no figures")
    sheet = write_pictures(folder, list(task.comparisons().items()), SHEET)
    if sheet is not None:
        log.info(
            "pictures     %s (prediction, truth, errors; the worst first; one by one in %s)", sheet, folder / PICTURES
        )
    if task.predictions is not None:
        log.info("predictions  %s (label images with VOC's palette)", task.predictions)

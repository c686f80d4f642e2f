"""What a segmentation run leaves at its end: results.json, a table and pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..common.text import table
from ..engine.record import LOGGER
from ..engine.results import PICTURES, say_where, write_pictures, write_results, write_table
from .task import KIND, SegmentationTask

log = logging.getLogger(LOGGER)
SHEET = "segmentation.jpg"
SUMMARY = {"mIoU": "mean IoU", "mACC": "mean accuracy", "pACC": "pixel accuracy", "fwIoU": "frequency-weighted IoU"}


def results_table(task: SegmentationTask) -> str:
    """Return the figures of the last evaluation in per cent, over all and by class."""
    values = {name: 100 * value for name, value in task.metrics.items()}
    whole = table([(name, values[key]) for key, name in SUMMARY.items()], (task.test.name, "%"))
    pixels = task.confusion.counts.sum(1).tolist()
    rows = [
        (name, values[f"IoU-{name}"], values[f"ACC-{name}"], number) for name, number in zip(task.test.classes, pixels)
    ]
    return f"{whole}\n\n{table(rows, ('class', 'IoU %', 'accuracy %', 'pixels'))}"


def report(task: SegmentationTask, config: Any, *, extra: dict[str, Any], json: Path | None) -> None:
    """Write results.json, results.md and pictures into OUTPUT_DIR; print the table and where they are."""
    folder = Path(config.OUTPUT_DIR)
    results = {KIND: task.metrics} if task.metrics else {}
    left_out = [str(task.test.path(index)) for index in sorted(task.left_out)]
    facts = {"network": config.MODEL.NAME, "head": config.MODEL.HEAD.NAME, "images": len(task.test)}
    write_results(config, {**results, **extra, **facts, "left_out": left_out}, *([json] if json else []))
    if results:
        write_table(config, results_table(task))
    say_where(config, "" if results else "no labels: no figures")
    sheet = write_pictures(folder, list(task.comparisons().items()), SHEET)
    if sheet is not None:
        log.info("pictures     %s (prediction left, truth right; one by one in %s)", sheet, folder / PICTURES)
    if task.predictions is not None:
        log.info("predictions  %s (label images with VOC's palette)", task.predictions)

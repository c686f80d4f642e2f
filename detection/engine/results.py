"""What a run leaves at its end: results.json, a table, and pictures of its detections."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from backbone.common.files import write_json
from backbone.engine.record import LOGGER
from backbone.engine.results import PICTURES, say_where, write_pictures, write_results, write_table

from .pictures import PAIR, evaluation_pictures
from .scoring import submit
from .task import DetectionTask

log = logging.getLogger(LOGGER)
SHEET = "detections.jpg"


def report(task: DetectionTask, results: dict[str, Any], config: CfgNode, *, extra: dict[str, Any]) -> None:
    """Write results.json, results.md, predictions and pictures into OUTPUT_DIR; print the table and where they are."""
    folder = Path(config.OUTPUT_DIR)
    test_images = {test.images.name: len(test.images) for test in task.sets.test}
    tested = {"test_images": test_images, "test_precision": config.TEST.PRECISION}
    write_results(config, {**results, **extra, **tested})
    write_submissions(task, folder)
    if not results:
        say_where(config, "nothing was evaluated")
        return
    tables = [f"{name}, {kind}\n\n{metrics.table()}" for (name, kind), metrics in task.metrics.items()]
    write_table(config, "\n\n".join(tables))
    for name, predictions in task.predictions.items():
        write_json(folder / f"predictions_{name}.json", predictions)
    sheet = write_pictures(folder, drawn_pictures(task, config), SHEET, width=PAIR)
    say_where(config)
    if sheet is not None:
        log.info("pictures     %s (predictions left, ground truth right; one by one in %s)", sheet, folder / PICTURES)


def write_submissions(task: DetectionTask, folder: Path) -> None:
    """Write what the evaluation servers take, of the test sets without ground truth."""
    for test in task.sets.test:
        found = task.predictions.get(test.images.name)
        if test.has_truth or found is None:
            continue
        path = submit(test, found, folder)
        log.info("%s has no ground truth: no figures; for its evaluation server: %s", test.images.name, path)


def drawn_pictures(task: DetectionTask, config: CfgNode) -> list[tuple[str, np.ndarray]]:
    """Return names and pictures, RGB, of TEST.PICTURES images of each test set."""
    return [
        (name, picture[:, :, ::-1])
        for test in task.sets.test
        for name, picture in evaluation_pictures(test.images, task.predictions.get(test.images.name, []), config)
    ]

"""What a run leaves at its end: results.json, a table, and pictures of its detections."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from backbone.common.environment import provenance
from backbone.common.files import write_json, write_text, write_whole
from backbone.common.images import montage
from backbone.engine.record import LOGGER, RESULTS

from .pictures import evaluation_pictures
from .scoring import submit
from .task import DetectionTask

log = logging.getLogger(LOGGER)
PICTURES, TABLE, SHEET = "pictures", "results.md", "detections.jpg"


def report(task: DetectionTask, results: dict[str, Any], config: CfgNode, *, extra: dict[str, Any]) -> None:
    """Write results.json, results.md, predictions and pictures into OUTPUT_DIR; print the table and where they are."""
    folder = Path(config.OUTPUT_DIR)
    extra = {**extra, "test_images": {test.images.name: len(test.images) for test in task.sets.test}}
    write_json(folder / RESULTS, {**results, **extra, **provenance(torch.device(config.MODEL.DEVICE))})
    write_submissions(task, folder)
    if not results:
        log.info("results in %s (nothing was evaluated)", folder / RESULTS)
        return
    tables = []
    for (name, kind), metrics in task.metrics.items():
        tables.append(f"{name}, {kind}\n\n{metrics.table()}")
    write_text(folder / TABLE, "\n\n".join(tables) + "\n")
    log.info("\n%s\n", "\n\n".join(tables))
    for name, predictions in task.predictions.items():
        write_json(folder / f"predictions_{name}.json", predictions)
    sheet = write_pictures(task, config)
    log.info("results      %s, %s", folder / RESULTS, folder / TABLE)
    if sheet is not None:
        log.info("pictures     %s (detections left, ground truth right; one by one in %s)", sheet, folder / PICTURES)


def write_submissions(task: DetectionTask, folder: Path) -> None:
    """Write what the evaluation servers take, of the test sets without ground truth."""
    for test in task.sets.test:
        found = task.predictions.get(test.images.name)
        if test.has_truth or found is None:
            continue
        path = submit(test, found, folder)
        log.info("%s has no ground truth: no figures; for its evaluation server: %s", test.images.name, path)


def write_pictures(task: DetectionTask, config: CfgNode) -> Path | None:
    """Write TEST.PICTURES pictures of each test set, and a sheet of all; return the sheet."""
    folder = Path(config.OUTPUT_DIR)
    drawn = []
    for test in task.sets.test:
        for name, picture in evaluation_pictures(test.images, task.predictions.get(test.images.name, []), config):
            _write_jpeg(folder / PICTURES / f"{name}.jpg", picture)
            drawn.append(picture)
    if not drawn:
        return None
    _write_jpeg(folder / SHEET, montage(drawn, columns=2, width=640))
    return folder / SHEET


def _write_jpeg(path: Path, picture: np.ndarray) -> None:
    content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    write_whole(path, lambda temporary: temporary.write_bytes(content))

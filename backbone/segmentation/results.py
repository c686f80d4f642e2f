"""What a segmentation run leaves at its end: results.json, a table, pictures, and a backbone file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..common.environment import provenance
from ..common.files import write_json, write_text, write_whole
from ..common.images import montage
from ..common.text import table
from ..engine.record import LOGGER, RESULTS
from ..weights import save_weights
from .task import KIND, SegmentationTask

log = logging.getLogger(LOGGER)
TABLE, BACKBONE, PICTURES, SHEET = "results.md", "backbone.safetensors", "pictures", "segmentation.jpg"
SUMMARY = {"mIoU": "mean IoU", "mACC": "mean accuracy", "pACC": "pixel accuracy", "fwIoU": "frequency-weighted IoU"}


def results_table(task: SegmentationTask) -> str:
    """Return the figures of the last evaluation in per cent, over all and by class."""
    values = task.metrics
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
    facts |= {"left_out": left_out, "broken_images": len(task.broken.messages)}
    record = {**results, **extra, **facts, **provenance(torch.device(config.MODEL.DEVICE))}
    for path in filter(None, (folder / RESULTS, json)):
        write_json(path, record)
    if results:
        text = results_table(task)
        write_text(folder / TABLE, text + "\n")
        log.info("\n%s\n", text)
        log.info("results      %s, %s", folder / RESULTS, folder / TABLE)
    else:
        log.info("results in %s (no labels: no figures)", folder / RESULTS)
    if task.drawn:
        sheet = write_pictures(task, folder)
        log.info("pictures     %s (prediction left, truth right; one by one in %s)", sheet, folder / PICTURES)
    if task.predictions is not None:
        log.info("predictions  %s (label images with VOC's palette)", task.predictions)


def write_pictures(task: SegmentationTask, folder: Path) -> Path:
    """Write the pictures of the last evaluation, and a sheet of all; return the sheet."""
    drawn = task.comparisons()
    for name, picture in drawn.items():
        _write_jpeg(folder / PICTURES / f"{name}.jpg", picture)
    _write_jpeg(folder / SHEET, montage(list(drawn.values()), columns=2, width=640))
    return folder / SHEET


def _write_jpeg(path: Path, picture: np.ndarray) -> None:
    content = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_backbone(task: SegmentationTask, config: Any) -> None:
    """Write the backbone's weights as a file that other trainings start from, with all that belongs to them."""
    path = Path(config.OUTPUT_DIR) / BACKBONE
    network = task.model.backbone
    network.preprocessing = task.preprocessing
    metadata = {"trained_on": task.train.name, "iterations": config.SOLVER.MAX_ITER}
    save_weights(network, path, metadata=metadata)
    log.info("backbone     %s", path)

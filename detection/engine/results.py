"""What a run leaves at its end: results.json, a table, and pictures of its detections."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from backbone.engine.environment import provenance
from backbone.engine.files import write_json, write_text, write_whole
from backbone.engine.record import LOGGER, RESULTS

from ..data.images import read_image
from ..data.sets import DetectionSet
from ..visualization import draw_objects, montage
from .task import DetectionTask

log = logging.getLogger(LOGGER)
PICTURES, TABLE, SHEET = "pictures", "results.md", "detections.jpg"


def report(task: DetectionTask, results: dict[str, Any], config: CfgNode, *, extra: dict[str, Any]) -> None:
    """Write results.json, results.md, predictions and pictures into OUTPUT_DIR; print the table and where they are."""
    folder = Path(config.OUTPUT_DIR)
    write_json(folder / RESULTS, {**results, **extra, **provenance(torch.device(config.MODEL.DEVICE))})
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
    sheet = draw_pictures(task, config)
    log.info("results      %s, %s", folder / RESULTS, folder / TABLE)
    if sheet is not None:
        log.info("pictures     %s (detections left, ground truth right; one by one in %s)", sheet, folder / PICTURES)


def draw_pictures(task: DetectionTask, config: CfgNode) -> Path | None:
    """Draw detections beside ground truth for TEST.PICTURES images of each test set; return the sheet of all."""
    folder = Path(config.OUTPUT_DIR) / PICTURES
    drawn = []
    for test in task.sets.test:
        images = test.images
        predictions = defaultdict(list)
        for record in task.predictions.get(images.name, []):
            predictions[record["image_id"]].append(record)
        # Evenly through the set, so that a sorted set does not show one kind of image alone.
        chosen = np.linspace(0, len(images) - 1, min(config.TEST.PICTURES, len(images))).astype(int)
        for index in np.unique(chosen).tolist():
            picture = _pair(images, index, predictions[images.image_ids[index].item()], config.TEST.PICTURE_SCORE)
            path = folder / f"{images.name}_{Path(images.files[index]).stem}.jpg"
            write_whole(path, lambda temporary, picture=picture: temporary.write_bytes(_jpeg(picture)))
            drawn.append(picture)
    if not drawn:
        return None
    path = Path(config.OUTPUT_DIR) / SHEET
    sheet = montage(drawn, columns=2, width=640)
    write_whole(path, lambda temporary: temporary.write_bytes(_jpeg(sheet)))
    return path


def _pair(images: DetectionSet, index: int, records: list[dict[str, Any]], least_score: float) -> np.ndarray:
    image = read_image(images.path(index), size=images.size(index))
    larger = max(1.0, 320 / min(image.shape[:2]))
    image = cv2.resize(image, None, fx=larger, fy=larger, interpolation=cv2.INTER_CUBIC)
    label_of = {category: label for label, category in enumerate(images.category_ids)}
    records = [record for record in records if record["score"] >= least_score]
    boxes = np.array([record["bbox"] for record in records]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [label_of[record["category_id"]] for record in records]
    scores = [record["score"] for record in records]
    found = draw_objects(image, boxes * larger, labels, images.classes, scores=scores)
    rows = slice(images.starts[index], images.starts[index + 1])
    truth = draw_objects(image, images.boxes[rows] * larger, images.labels[rows].tolist(), images.classes)
    return np.concatenate([found, np.full((image.shape[0], 4, 3), 255, dtype=np.uint8), truth], axis=1)


def _jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()

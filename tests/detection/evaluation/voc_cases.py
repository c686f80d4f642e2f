"""Random detections on a PASCAL VOC split, and detectron2's evaluation of files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detection.data.voc import VOC_CLASSES, VocObjects
from detection.evaluation.voc_detections import VocDetections

IOUS = range(50, 100, 5)


def random_detections(objects: VocObjects, number: int, seed: int = 0, *, decimals: int | None = None) -> VocDetections:
    """Return detections near the objects, some far off, some of a wrong class or image; ties where rounded."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, len(objects.labels), number)
    far = rng.random(number) < 0.5
    boxes = objects.boxes[source] + rng.normal(0, 1, (number, 4)) * np.where(far, 25, 4)[:, None]
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.where(rng.random(number) < 0.3, rng.integers(0, len(VOC_CLASSES), number), objects.labels[source])
    image = np.where(rng.random(number) < 0.1, rng.integers(0, len(objects.ids), number), objects.image[source])
    scores = rng.random(number)
    if decimals is not None:
        scores, boxes = scores.round(decimals), boxes.round(1)
    return VocDetections(image, labels, scores, boxes)


def records_of(found: VocDetections, ids: list[str]) -> list[dict]:
    """Return detections as COCO results: boxes from 0, as [x, y, width, height]."""
    low, sides = found.boxes[:, :2] - 1, found.boxes[:, 2:] - found.boxes[:, :2] + 1
    return [
        {"image_id": ids[image], "category_id": label + 1, "bbox": box, "score": score}
        for image, label, box, score in zip(
            found.image.tolist(), found.labels.tolist(), np.hstack([low, sides]).tolist(), found.scores.tolist()
        )
    ]


def detectron2_aps(folder: Path, year: Path, split: str, *, use_07_metric: bool) -> np.ndarray:
    """Return detectron2's AP (20, 10) of each class at IoU .5, .55, ... of a folder of the server's files."""
    from detectron2.evaluation.pascal_voc_evaluation import voc_eval

    files, annotations = str(folder / f"comp4_det_{split}_{{}}.txt"), str(year / "Annotations/{}.xml")
    listed = str(year / "ImageSets/Main" / f"{split}.txt")
    rows = [
        [voc_eval(files, annotations, listed, name, iou / 100.0, use_07_metric)[2] for iou in IOUS]
        for name in VOC_CLASSES
    ]
    return np.array(rows)

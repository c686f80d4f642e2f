"""Predictions made from ground truth, with errors of known kinds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

RATES = {"Right": 0.45, "Cls": 0.1, "Loc": 0.12, "Both": 0.06, "Dupe": 0.12, "Miss": 0.15}
BACKGROUND_RATE = 0.4  # an image
APART = 0.05  # IoU with every other object below which an error cannot be taken for another kind


def plant(truth: dict[str, Any], seed: int = 0, *, clean: bool = False) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return predictions in COCO form for the ground truth `truth`, and how many errors of each kind they hold.

    Args:
        clean: plant errors on objects that stand apart from all others alone, so that the kinds come out exactly; the
            other objects get right detections.
    """
    rng = np.random.default_rng(seed)
    classes = [category["id"] for category in truth["categories"]]
    by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    found: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for image in truth["images"]:
        boxes = np.array([row["bbox"] for row in by_image[image["id"]]], dtype=float).reshape(-1, 4)
        for index, annotation in enumerate(by_image[image["id"]]):
            if annotation.get("iscrowd"):
                continue
            kind = str(rng.choice(list(RATES), p=list(RATES.values())))
            others = np.delete(boxes, index, axis=0)
            if clean and iou(_grown(boxes[index]), others).max(initial=0) > 0:
                kind = "Right"
            counts[kind] += 1
            found += _detections(rng, kind, annotation, classes)
        box = _background(rng, image, boxes)
        if rng.random() < BACKGROUND_RATE and box is not None:
            counts["Bkg"] += 1
            label = int(rng.choice(classes))
            found.append(_record(image["id"], label, box, rng.uniform(0.1, 0.9)))
    # A Both error finds nothing: its object is missed too.
    counts["Miss"] += counts["Both"]
    return found, counts


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of a box with others, all [x, y, width, height]."""
    sides = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    return shared / np.maximum(box[2:].prod() + others[:, 2:].prod(axis=1) - shared, 1e-9)


def _grown(box: np.ndarray) -> np.ndarray:
    """Return what a planted detection of the box can reach."""
    return np.concatenate([box[:2] - box[2:], 3 * box[2:]])


def _detections(
    rng: np.random.Generator, kind: str, annotation: dict[str, Any], classes: list[int]
) -> list[dict[str, Any]]:
    image, label = annotation["image_id"], annotation["category_id"]
    box = np.array(annotation["bbox"], dtype=float)
    other = int(rng.choice([one for one in classes if one != label]))
    near = box + 0.02 * rng.uniform(-1, 1, 4) * np.tile(box[2:], 2)
    # Half a width aside: IoU 1/3.
    aside = box + np.array([0.5 * box[2] * rng.choice([-1, 1]), 0, 0, 0])
    score = rng.uniform(0.5, 1)
    if kind == "Miss":
        return []
    if kind in ("Loc", "Both"):
        return [_record(image, label if kind == "Loc" else other, aside, score)]
    if kind == "Cls":
        return [_record(image, other, near, score)]
    right = [_record(image, label, near, score)]
    return right if kind == "Right" else [*right, _record(image, label, box, 0.6 * score)]


def _background(rng: np.random.Generator, image: dict[str, Any], boxes: np.ndarray) -> np.ndarray | None:
    for _ in range(20):
        sides = rng.uniform(0.05, 0.25, 2) * [image["width"], image["height"]]
        corner = rng.uniform(0, 1, 2) * ([image["width"], image["height"]] - sides)
        box = np.concatenate([corner, sides])
        if iou(box, boxes).max(initial=0) < APART:
            return box
    return None


def _record(image: Any, label: int, box: np.ndarray, score: float) -> dict[str, Any]:
    box = [round(value, 3) for value in box.tolist()]
    return {"image_id": image, "category_id": label, "bbox": box, "score": round(float(score), 4)}

"""The engines of COCO evaluation against each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from backbone.engine.timing import alternate
from detection.evaluation import ENGINES, evaluate_coco

from .report import Section


def synthetic(
    images: int = 5000, objects: int = 7, found: int = 40, classes: int = 80, seed: int = 0
) -> tuple[dict, list]:
    """Return ground truth and `found` detections an image, half of them near an object."""
    rng = np.random.default_rng(seed)
    total, detections = images * objects, images * found

    def boxes(number: int) -> np.ndarray:
        return np.concatenate([rng.random((number, 2)) * [500, 350], rng.random((number, 2)) ** 2 * 250 + 2], axis=1)

    truth, truth_class = boxes(total), rng.integers(1, classes + 1, total)
    image = np.arange(detections) // found
    near = image * objects + rng.integers(0, objects, detections)
    hit = rng.random(detections) < 0.5
    predicted = np.where(hit[:, None], truth[near] + rng.standard_normal((detections, 4)) * 6, boxes(detections))
    predicted[:, 2:] = np.maximum(predicted[:, 2:], 1)
    labels = np.where(hit, truth_class[near], rng.integers(1, classes + 1, detections))
    annotations: list[dict[str, Any]] = [
        {
            "id": row + 1,
            "image_id": row // objects + 1,
            "category_id": int(truth_class[row]),
            "bbox": truth[row].tolist(),
            "area": float(truth[row, 2] * truth[row, 3] * 0.7),
            "iscrowd": int(row % 100 == 0),
        }
        for row in range(total)
    ]
    ground_truth = {
        "images": [{"id": row + 1, "width": 640, "height": 480} for row in range(images)],
        "categories": [{"id": row + 1, "name": f"class {row + 1}"} for row in range(classes)],
        "annotations": annotations,
    }
    scores = rng.random(detections).tolist()
    results = [
        {
            "image_id": int(image[row]) + 1,
            "category_id": int(labels[row]),
            "bbox": predicted[row].tolist(),
            "score": score,
        }
        for row, score in enumerate(scores)
    ]
    return ground_truth, results


def measure(*, rounds: int) -> Section:
    """Time a whole evaluation of 200,000 detections by every installed engine."""
    ground_truth, results = synthetic()
    metrics = {}

    def way(engine: str):
        def run() -> None:
            metrics[engine] = evaluate_coco(ground_truth, results, engine=engine)

        return run

    timings = alternate({engine: way(engine) for engine in ENGINES}, rounds=rounds, warm_up=0)
    reference = metrics["pycocotools"]
    rows = [
        [engine, timing.median, timings["pycocotools"].median / timing.median, _agreement(metrics[engine], reference)]
        for engine, timing in timings.items()
    ]
    return Section(
        name="evaluation",
        title="COCO evaluation",
        method=(
            "5,000 images, 35,000 objects, 200,000 detections, 80 classes, boxes, in memory; the whole call with its "
            f"checks. In one process, in turn, median of {rounds} rounds."
        ),
        header=["engine", "s", "times pycocotools", "precision and recall"],
        rows=rows,
        figures={engine: {"seconds": timing.median} for engine, timing in timings.items()},
    )


def _agreement(metrics, reference) -> str:
    same = np.array_equal(metrics.precision, reference.precision) and np.array_equal(metrics.recall, reference.recall)
    if same:
        return "the same bits"
    return f"apart by at most {np.abs(metrics.precision - reference.precision).max():.1e}"

"""Small cases written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detection.analysis import Case, Detections, Objects

BOX = (100.0, 100.0, 100.0, 100.0)
BESIDE = (150.0, 100.0, 100.0, 100.0)  # IoU 1/3 with BOX
FAR = (400.0, 300.0, 50.0, 50.0)


def make_case(
    objects: Sequence[tuple[Any, ...]], detections: Sequence[tuple[Any, ...]], *, classes: int = 2, images: int = 2
) -> Case:
    """Return a case.

    Args:
        objects: (image, label, box) or (image, label, box, "difficult" or "crowd").
        detections: (image, label, box, score).
    """
    flags = [row[3] if len(row) > 3 else "" for row in objects]
    crowd = np.array([flag == "crowd" for flag in flags], dtype=bool)
    truth = _columns(objects)
    found = _columns(detections)
    return Case(
        class_names=[f"class {label}" for label in range(classes)],
        image_names=[f"{image}.jpg" for image in range(images)],
        image_sizes=[(480, 640)] * images,
        objects=Objects(*truth, ignored=np.array([flag != "" for flag in flags], dtype=bool), crowd=crowd),
        detections=Detections(*found, scores=np.array([row[3] for row in detections], dtype=np.float64)),
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[np.ndarray, ...]:
    boxes = np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4)
    integers = (np.array([row[place] for row in rows], dtype=np.int64) for place in (0, 1))
    return (*integers, boxes, boxes[:, 2] * boxes[:, 3])

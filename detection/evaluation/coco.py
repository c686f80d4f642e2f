"""COCO evaluation of boxes, masks and keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbone.common.errors import UserError

from .engines import run_engine
from .ground_truth import GroundTruth, load_ground_truth
from .metrics import CocoMetrics
from .predictions import Predictions, load_predictions

MAX_DETECTIONS = {"bbox": (1, 10, 100), "segm": (1, 10, 100), "keypoints": (20,)}
IOU_TYPES = tuple(MAX_DETECTIONS)


def evaluate_coco(
    ground_truth: str | Path | dict[str, Any] | GroundTruth,
    predictions: str | Path | list[dict[str, Any]] | Predictions,
    iou_type: str = "bbox",
    *,
    engine: str = "auto",
    max_detections: Sequence[int] | None = None,
    sigmas: Sequence[float] = (),
) -> CocoMetrics:
    """Evaluate predictions with COCO's figures, identical to pycocotools's.

    Args:
        ground_truth: a COCO JSON file, what it holds, or what `load_ground_truth` returned for this `iou_type`.
        predictions: a JSON file in COCO's results form, or its list; it may be empty. Boxes are [x, y, width, height]
            in absolute pixels. Where masks come with boxes, see `load_predictions`. Or what that returned for this
            ground truth and `iou_type`.
        iou_type: "bbox", "segm" or "keypoints".
        engine: "auto" (hotcoco, or pycocotools when that is missing or fails), "hotcoco", "faster-coco-eval" (may
            differ in the last bit) or "pycocotools".
        max_detections: limits of detections per image and category, by default 1, 10, 100, and 20 for keypoints. AP,
            and AR of area ranges, are at the largest one (pycocotools gives AP only for 100).
        sigmas: of keypoints in a file, see `load_ground_truth`.

    Raises:
        DataError: a file or record is missing, malformed or inconsistent.
        UserError: an unknown `iou_type`, `engine` or limit, or the engine is not installed.
    """
    if iou_type not in IOU_TYPES:
        raise UserError(f"unknown IoU type {iou_type!r}; known: {', '.join(IOU_TYPES)}")
    limits = _limits(max_detections, iou_type)
    if not isinstance(ground_truth, GroundTruth):
        ground_truth = load_ground_truth(ground_truth, iou_type, sigmas)
    elif ground_truth.iou_type != iou_type:
        raise UserError(f"ground truth loaded for {ground_truth.iou_type!r} cannot serve {iou_type!r}; load it again")
    read = isinstance(predictions, Predictions)
    found = predictions if read else load_predictions(predictions, ground_truth, iou_type)
    curves, used = run_engine(ground_truth, found, limits, engine)
    return CocoMetrics(
        iou_type=iou_type,
        engine=used,
        class_names=ground_truth.class_names,
        max_detections=limits,
        curves=curves,
        without_mask=ground_truth.without_mask,
    )


def _limits(max_detections: Sequence[int] | None, iou_type: str) -> list[int]:
    limits = list(MAX_DETECTIONS[iou_type] if max_detections is None else max_detections)
    if not limits or not all(isinstance(limit, int) and limit > 0 for limit in limits):
        raise UserError(f"limits of detections must be positive integers, such as 1, 10, 100; not {limits}")
    return sorted(set(limits))

"""Predictions in COCO's results form, checked and laid out in columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbone.common.errors import DataError

from ..coco_json.masks import Size, areas_and_boxes, check_segmentations, to_run_lengths
from ..coco_json.records import Records, is_absent, no_collection, read_source
from .ground_truth import KEYPOINTS, GroundTruth

MEND = "write the predictions again"
NEEDED = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


@dataclass(frozen=True, eq=False)
class Predictions:
    """N predictions, in the file's order; `image` and `category` hold positions in the ground truth's lists.

    Attributes:
        image, category: (N,) int64.
        scores: (N,) float64.
        boxes: (N, 4) float64 [x, y, width, height] in absolute pixels.
        areas: (N,) float64, pixels: what counts as small, medium or large.
        segmentations: for "segm", compressed run lengths.
        keypoints: for "keypoints", (N, 3 * K) float64: x, y, anything.
    """

    image: np.ndarray
    category: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    segmentations: list[dict[str, Any]] | None = None
    keypoints: np.ndarray | None = None


@no_collection()
def load_predictions(
    source: str | Path | list[dict[str, Any]], ground_truth: GroundTruth, iou_type: str = "bbox"
) -> Predictions:
    """Read and check predictions. The given list stays as it is, and may be empty.

    As with pycocotools's `loadRes`, the first prediction says where boxes and areas come from: its box if it has one,
    else its mask, else its keypoints. So masks that come with boxes are small, medium or large by their boxes; leave
    the boxes out to go by the masks, as detectron2 does.

    Raises:
        DataError: the file cannot be read or has another form, an image or category is not in the ground truth, or a
            value is missing or wrong; the message names the record.
    """
    data, name = read_source(source, "predictions")
    if isinstance(data, dict):
        hint = "which looks like ground truth; " if "images" in data or "annotations" in data else ""
        raise DataError(f"{name}: holds an object, {hint}give predictions: a list of objects with image_id and score")
    records = Records(data, name, "predictions", MEND)
    image = records.positions("image_id", _positions(ground_truth.image_ids), f"the images of {ground_truth.source}")
    category = records.positions(
        "category_id", _positions(ground_truth.category_ids), f"the categories of {ground_truth.source}"
    )
    segmentations = keypoints = None
    form = _form(records, iou_type)
    if iou_type == "segm" or form == "segmentation":
        segmentations = _run_lengths(records, [ground_truth.image_sizes[i] for i in image.tolist()])
    if iou_type == "keypoints" or form == "keypoints":
        width = ground_truth.keypoints.shape[1] if ground_truth.keypoints is not None else 3 * KEYPOINTS
        keypoints = records.numbers("keypoints", width)
    boxes, areas = _boxes_and_areas(records, form, segmentations, keypoints)
    return Predictions(
        image=image,
        category=category,
        scores=records.numbers("score"),
        boxes=boxes,
        areas=areas,
        segmentations=segmentations if iou_type == "segm" else None,
        keypoints=keypoints if iou_type == "keypoints" else None,
    )


def _positions(ids: list[Any]) -> dict[Any, int]:
    return {key: position for position, key in enumerate(ids)}


def _form(records: Records, iou_type: str) -> str:
    """Return the key that boxes and areas come from; see `load_predictions`."""
    if not len(records):
        return "bbox"
    present = [key for key in NEEDED.values() if not is_absent(records.rows[0].get(key))]
    if not present:
        records.fail(0, f"no {NEEDED[iou_type]!r}", f"{iou_type} evaluation needs it")
    return present[0]


def _run_lengths(records: Records, sizes: list[Size]) -> list[dict[str, Any]]:
    masks = check_segmentations(records, range(len(records)), sizes)
    return [to_run_lengths(mask, size) for mask, size in zip(masks, sizes)]


def _boxes_and_areas(
    records: Records, form: str, segmentations: list[dict[str, Any]] | None, keypoints: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if form == "segmentation":
        areas, boxes = areas_and_boxes(segmentations)
        return boxes, areas
    if form == "bbox":
        boxes = records.boxes()
    else:
        points = keypoints.reshape(len(keypoints), -1, 3)[:, :, :2]
        low, high = points.min(axis=1), points.max(axis=1)
        boxes = np.concatenate([low, high - low], axis=1)
    return boxes, boxes[:, 2] * boxes[:, 3]

"""Pictures of what a detector is given and of what it finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode

from backbone.common.errors import DataError
from backbone.common.images import lettering, montage, picture_of, read_image

from ..data.augment import bit_masks
from ..data.keypoints import CENTRE
from ..data.sets import DetectionSet
from ..visualization import WHITE, draw_objects, write

IN_SHEET = 4  # training images in a picture
SHOWN, GAP = 480, 4  # pixels: the width of each half of a pair, and what parts them
PAIR = 2 * SHOWN + GAP


def training_picture(batch: list[dict[str, Any]], classes: list[str], channel_order: str) -> np.ndarray:
    """Return the first images of a training batch with their ground truth, (H, W, 3) BGR uint8.

    Args:
        channel_order: of the batch's images.
    """
    drawn = []
    for sample in batch[:IN_SHEET]:
        image = sample["image"].permute(1, 2, 0).numpy().astype(np.uint8)
        image = np.ascontiguousarray(picture_of(image, channel_order))
        target = sample["instances"]
        points = target.gt_keypoints.tensor.numpy() if target.has("gt_keypoints") else None
        boxes, labels = target.gt_boxes.tensor.numpy(), target.gt_classes.tolist()
        masks = bit_masks(target).tensor.numpy() if target.has("gt_masks") else None
        drawn.append(draw_objects(image, boxes, labels, classes, masks=masks, keypoints=points))
    return montage(drawn, columns=2)


def evaluation_pictures(
    images: DetectionSet, predictions: list[dict[str, Any]], config: CfgNode
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and picture (BGR; detections left, ground truth right) of TEST.PICTURES images of a test set."""
    of_image = defaultdict(list)
    for record in predictions:
        of_image[record["image_id"]].append(record)
    # Evenly through the set, so that a sorted set does not show one kind of image alone.
    chosen = np.linspace(0, len(images) - 1, min(config.TEST.PICTURES, len(images))).astype(int)
    for index in np.unique(chosen).tolist():
        try:
            records = of_image[images.image_ids[index].item()]
            picture = _pair(images, index, records, config.TEST.PICTURE_SCORE, config.INPUT.FORMAT)
        except DataError:
            continue  # the evaluation has named it
        yield f"{images.name}_{Path(images.files[index]).stem}", picture


def _pair(
    images: DetectionSet, index: int, records: list[dict[str, Any]], least_score: float, order: str
) -> np.ndarray:
    image = picture_of(read_image(images.path(index), size=images.size(index), channel_order=order), order)
    # As it is shown, so that names can be read there: two halves of SHOWN pixels and the gap between them.
    larger = SHOWN / image.shape[1]
    method = cv2.INTER_CUBIC if larger > 1 else cv2.INTER_AREA
    image = cv2.resize(image, (SHOWN, max(1, round(image.shape[0] * larger))), interpolation=method)
    label_of = {category: label for label, category in enumerate(images.category_ids)}
    records = [record for record in records if record["score"] >= least_score]
    boxes = np.array([record["bbox"] for record in records]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [label_of[record["category_id"]] for record in records]
    scores = [record["score"] for record in records]
    points = None
    if records and "keypoints" in records[0]:
        points = _enlarged(np.array([record["keypoints"] for record in records]), larger)
    found = draw_objects(image, boxes * larger, labels, images.classes, scores=scores, keypoints=points)
    rows = slice(images.starts[index], images.starts[index + 1])
    points = None if images.keypoints is None else _enlarged(images.keypoints[rows], larger)
    truth = draw_objects(
        image, images.boxes[rows] * larger, images.labels[rows].tolist(), images.classes, keypoints=points
    )
    halves = [_titled(found, f"prediction, score >= {least_score:g}"), _titled(truth, "truth")]
    gap = np.full((halves[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=1)


def _titled(picture: np.ndarray, title: str) -> np.ndarray:
    """Return the picture below a white line that says what it is."""
    words = lettering(title, 16)
    bar = np.full((words.shape[0] + 6, picture.shape[1], 3), 255, dtype=np.uint8)
    write(bar, words, (4, 3), WHITE)
    return np.concatenate([bar, picture])


def _enlarged(keypoints: np.ndarray, larger: float) -> np.ndarray:
    """Return keypoints of COCO's form, (N, 3 * K) or (N, K, 3), as (N, K, 3) in pixels of the enlarged image."""
    points = keypoints.reshape(len(keypoints), -1, 3)
    return (points + (CENTRE, CENTRE, 0)) * (larger, larger, 1)

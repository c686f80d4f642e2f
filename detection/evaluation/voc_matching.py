"""Which ground truth each detection overlaps most, and which detections are right: PASCAL VOC's rules, for all at once.

The rules are those of the development kit, as detectron2's `voc_eval` has them: boxes include their last pixel; a
detection belongs to the object of its class and image that it overlaps most; the one with the highest score is right,
further ones are wrong; those that belong to a difficult object are neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.voc import VocObjects
from .voc_detections import VocDetections

# The quotients that detectron2's evaluator compares with, to the last bit.
IOU_THRESHOLDS = np.arange(50, 100, 5) / 100.0


@dataclass(frozen=True, eq=False)
class Curve:
    """Recall and precision of one class at one IoU after each of its D detections, best score first.

    Attributes:
        recall, precision, scores: (D,) float64.
    """

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray


def curves(truth: VocObjects, found: VocDetections) -> list[list[Curve]]:
    """Return the curve of each class (outer list) at each of IOU_THRESHOLDS; recall is NaN without ground truth."""
    classes = len(truth.split.classes)
    overlap, owner = best_overlaps(truth, found)
    ranked = [_by_score(found, label) for label in range(classes)]
    order = np.concatenate(ranked)
    ends = np.cumsum([len(rows) for rows in ranked])[:-1]
    counted = np.bincount(truth.labels[~truth.difficult], minlength=classes).tolist()
    result: list[list[Curve]] = [[] for _ in range(classes)]
    for threshold in IOU_THRESHOLDS.tolist():
        right, wrong = _judge(overlap[order] > threshold, owner[order], truth.difficult)
        parts = zip(np.split(right, ends), np.split(wrong, ends), ranked, counted)
        for label, (hits, misses, rows, number) in enumerate(parts):
            result[label].append(_curve(hits, misses, found.scores[rows], number))
    return result


def _by_score(found: VocDetections, label: int) -> np.ndarray:
    rows = np.flatnonzero(found.labels == label)
    # The same sort of the same values as detectron2's, so that equal scores come in the same order.
    return rows[np.argsort(-found.scores[rows])]


def _judge(hit: np.ndarray, owner: np.ndarray, difficult: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the ranked detections are right, and which wrong, (N,) bool each."""
    ignored = np.zeros_like(hit)
    ignored[hit] = difficult[owner[hit]]
    candidates = np.flatnonzero(hit & ~ignored)
    first = np.full(len(difficult), -1)
    # Backwards: of several detections of an object the best one writes last.
    first[owner[candidates[::-1]]] = candidates[::-1]
    right = np.zeros_like(hit)
    right[first[first >= 0]] = True
    return right, ~right & ~ignored


def _curve(right: np.ndarray, wrong: np.ndarray, scores: np.ndarray, counted: int) -> Curve:
    hits, misses = np.cumsum(right.astype(np.float64)), np.cumsum(wrong.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / float(counted)
    # Before the first detection that counts, both are 0.
    precision = hits / np.maximum(hits + misses, np.finfo(np.float64).eps)
    return Curve(recall, precision, scores)


def best_overlaps(truth: VocObjects, found: VocDetections) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest IoU of each detection with objects of its class and image, and which object that is.

    Returns:
        (N,) float64, -inf where there is no such object; (N,) int64 positions in `truth`, the first of equals, -1.
    """
    images = len(truth.ids)
    keys = truth.labels * images + truth.image
    order = np.argsort(keys, kind="stable")
    wanted = found.labels * images + found.image
    start, end = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
    number = end - start
    some = np.flatnonzero(number)
    overlap, owner = np.full(len(wanted), -np.inf), np.full(len(wanted), -1)
    if not len(some):
        return overlap, owner
    # Every pair of a detection and an object of its class and image; the pairs of a detection stand together.
    detection = np.repeat(some, number[some])
    offsets = np.cumsum(number[some]) - number[some]
    within = np.arange(len(detection)) - np.repeat(offsets, number[some])
    target = order[start[detection] + within]
    ious = _ious(found.boxes[detection], truth.boxes[target])
    overlap[some] = np.maximum.reduceat(ious, offsets)
    is_best = ious == np.repeat(overlap[some], number[some])
    place = np.minimum.reduceat(np.where(is_best, np.arange(len(ious)), len(ious) - 1), offsets)
    owner[some] = target[place]
    return overlap, owner


def _ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (P,) IoU of paired boxes; sums in the development kit's order, so that the last bit agrees."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    sides = np.maximum(high - low + 1.0, 0.0)
    shared = sides[:, 0] * sides[:, 1]
    area_a, area_b = ((box[:, 2] - box[:, 0] + 1.0) * (box[:, 3] - box[:, 1] + 1.0) for box in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / (area_a + area_b - shared)

"""Which detections overlap which objects, and which detection takes which object, over a whole data set at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .case import Case, Detections

AT_ONCE = 1_000_000  # pairs of a detection and an object whose overlaps are computed together
# pycocotools's: an IoU threshold of 1 still takes boxes that differ by rounding.
HIGHEST_IOU = 1 - 1e-10


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of a detection and an object in the same image.

    Attributes:
        detection, object: (P,) int64 positions.
        iou: (P,) float64; with a crowd, intersection over the detection's area.
    """

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray

    def take(self, chosen: np.ndarray) -> Pairs:
        """Return the pairs at `chosen`, a mask or positions."""
        return Pairs(self.detection[chosen], self.object[chosen], self.iou[chosen])


def find_pairs(case: Case, least_iou: float) -> Pairs:
    """Return all pairs, of equal and of different classes, whose IoU is `least_iou` or more."""
    objects, detections = case.objects, case.detections
    by_image = np.argsort(objects.image, kind="stable")
    starts = np.searchsorted(objects.image[by_image], np.arange(len(case.image_names) + 1))
    numbers = np.diff(starts)[detections.image] if len(detections) else np.zeros(0, dtype=np.int64)
    ends = np.cumsum(numbers)
    parts, row = [], 0
    while row < len(detections):
        done = ends[row] - numbers[row]
        last = max(row + 1, int(np.searchsorted(ends, done + AT_ONCE, side="right")))
        counts = numbers[row:last]
        detection = np.repeat(np.arange(row, last), counts)
        within = np.arange(len(detection)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = Pairs(detection, by_image[starts[detections.image[detection]] + within], np.zeros(0))
        parts.append(_overlapping(case, found, least_iou))
        row = last
    if not parts:
        return Pairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    return Pairs(*(np.concatenate([getattr(part, key) for part in parts]) for key in ("detection", "object", "iou")))


def _overlapping(case: Case, pairs: Pairs, least_iou: float) -> Pairs:
    found, truth = case.detections.boxes[pairs.detection], case.objects.boxes[pairs.object]
    low = np.maximum(found[:, :2], truth[:, :2])
    high = np.minimum(found[:, :2] + found[:, 2:], truth[:, :2] + truth[:, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[:, 0] * sides[:, 1]
    area = found[:, 2] * found[:, 3]
    union = np.where(case.objects.crowd[pairs.object], area, area + truth[:, 2] * truth[:, 3] - shared)
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    near = iou >= least_iou
    return Pairs(pairs.detection[near], pairs.object[near], iou[near])


def match(
    pairs: Pairs, turn: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, reusable: np.ndarray
) -> np.ndarray:
    """Let detections take objects as pycocotools does, for C settings (IoU threshold, area range) at once.

    The detections take turns, the best score first. Each takes the free object with the highest IoU, of two with equal
    IoU the later one, and an ignored object only where no other is left.

    Args:
        pairs: those that may be matched.
        turn: (D,) int64: when a detection is served. Detections with equal turn must not share an object.
        thresholds: (C,) least IoU.
        ignored: (N, C) bool, of the objects.
        reusable: (N,) bool: objects that any number of detections may take.

    Returns:
        (D, C) int32: the object that each detection takes, or -1.
    """
    taken_by = np.full((len(turn), len(thresholds)), -1, dtype=np.int32)
    if not len(pairs.iou):
        return taken_by
    pairs = pairs.take(np.lexsort((pairs.object, pairs.iou, pairs.detection, turn[pairs.detection])))
    taken = np.zeros(ignored.shape, dtype=bool)
    least = np.minimum(thresholds, HIGHEST_IOU)
    bounds = [0, *(np.flatnonzero(np.diff(turn[pairs.detection])) + 1).tolist(), len(pairs.iou)]
    for start, end in zip(bounds[:-1], bounds[1:]):
        objects, detections = pairs.object[start:end], pairs.detection[start:end]
        free = (pairs.iou[start:end, None] >= least) & (~taken[objects] | reusable[objects, None])
        # The pairs of a detection stand in the order of their IoU: the highest place wins.
        place = np.arange(len(objects))[:, None] + len(objects) * ~ignored[objects]
        firsts = np.flatnonzero(np.diff(detections, prepend=-1))
        best = np.maximum.reduceat(np.where(free, place, -1), firsts, axis=0)
        rows, columns = np.nonzero(best >= 0)
        chosen = objects[best[rows, columns] % len(objects)]
        taken[chosen, columns] = True
        taken_by[detections[firsts[rows]], columns] = chosen
    return taken_by


def places(scores: np.ndarray, *groups: np.ndarray) -> np.ndarray:
    """Return the place of each detection by score in its group, from 0; (D,) int64. Equal scores keep their order.

    Args:
        groups: columns of integers; detections with equal values in all of them are a group.
    """
    order = np.lexsort((-scores, *groups))
    fresh = np.zeros(len(scores), dtype=bool)
    fresh[:1] = True
    for group in groups:
        fresh[1:] |= np.diff(group[order]) != 0
    starts = np.flatnonzero(fresh)
    result = np.empty(len(scores), dtype=np.int64)
    result[order] = np.arange(len(scores)) - np.repeat(starts, np.diff([*starts.tolist(), len(scores)]))
    return result


def in_order(detections: Detections, most: int) -> tuple[Detections, np.ndarray]:
    """Return the `most` best detections of each image and class, by class and falling score, and their places there.

    Equal scores stand in the order of the images, and within an image in the given order, as in pycocotools.
    """
    place = places(detections.scores, detections.label, detections.image)
    order = np.lexsort((place, detections.image, -detections.scores, detections.label))
    order = order[place[order] < most]
    return detections.take(order), place[order]

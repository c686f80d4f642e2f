"""Precision, recall and average precision of matched detections, as COCO defines them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..evaluation.metrics import IOU_THRESHOLDS, RECALL_THRESHOLDS
from .case import Case
from .overlaps import Pairs, match

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LIMITS = (1, 10, 100)
"""Detections per image and class that recall is given for; AP is at the last one."""
AT_50, AT_75 = 0, 5
TRUE, FALSE, IGNORED = 1, 0, -1


@dataclass(frozen=True, eq=False)
class Figures:
    """T IoU thresholds, R recall thresholds, K classes, A area ranges, M limits; NaN where there is no object.

    Attributes:
        precision: (T, R, K, A), the highest at this recall or a higher one; 0 beyond the highest recall.
        recall: (T, K, A, M).
        taken: (D,) int32: the object that a detection takes at IoU .5, any area; -1 where none.
        outcome: (D,) int8 at IoU .5, any area: TRUE, FALSE or IGNORED.
    """

    precision: np.ndarray
    recall: np.ndarray
    taken: np.ndarray
    outcome: np.ndarray

    def ap(self, iou: int | slice = slice(None), area: int = 0) -> float:
        """Return the mean AP of the classes at IoU thresholds (by position) and an area range; NaN of no object."""
        return mean(self.precision[iou, ..., area])

    def class_ap(self, label: int, iou: int | slice = slice(None), area: int = 0) -> float:
        """Return the AP of a class; NaN without an object."""
        return mean(self.precision[iou, ..., label, area])


def mean(values: np.ndarray) -> float:
    """Return the mean of what is not NaN, and NaN of nothing."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def measure(case: Case, pairs: Pairs, place: np.ndarray) -> Figures:
    """Match and accumulate at every IoU threshold and area range.

    Args:
        case: its detections as `in_order` leaves them.
        place: of the detections in their image and class.
    """
    objects, detections = case.objects, case.detections
    ranges = np.array(list(AREAS.values()))
    out_objects, out_found = (_outside(areas, ranges) for areas in (objects.areas, detections.areas))
    thresholds = np.repeat(IOU_THRESHOLDS, len(ranges))
    ignored = np.tile(objects.ignored[:, None] | out_objects, (1, len(IOU_THRESHOLDS)))
    same = objects.label[pairs.object] == detections.label[pairs.detection]
    taken = match(pairs.take(same & (pairs.iou >= IOU_THRESHOLDS[0])), place, thresholds, ignored, objects.ignored)
    outcome = np.where(np.tile(out_found, (1, len(IOU_THRESHOLDS))), IGNORED, FALSE).astype(np.int8)
    rows, columns = np.nonzero(taken >= 0)
    outcome[rows, columns] = np.where(ignored[taken[rows, columns], columns], IGNORED, TRUE)
    shape = (len(IOU_THRESHOLDS), len(ranges))
    precision, recall = [], []
    for label in range(len(case.class_names)):
        own = slice(*np.searchsorted(detections.label, [label, label + 1]))
        wanted = (~ignored[objects.label == label]).sum(axis=0)
        precision.append(_precision(outcome[own], wanted).reshape(*shape, -1))
        recall.append(_recall(outcome[own], place[own], wanted).reshape(*shape, -1))
    classes = len(case.class_names)
    return Figures(
        precision=np.array(precision).reshape(classes, *shape, len(RECALL_THRESHOLDS)).transpose(1, 3, 0, 2),
        recall=np.array(recall).reshape(classes, *shape, len(LIMITS)).transpose(1, 0, 2, 3),
        taken=taken[:, 0].copy(),
        outcome=outcome[:, 0].copy(),
    )


def _outside(areas: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return (areas[:, None] < ranges[:, 0]) | (areas[:, None] > ranges[:, 1])


def _precision(outcome: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return (C, R) of one class's (D, C) outcomes, D by falling score, and numbers of objects (C,)."""
    true = np.cumsum(outcome == TRUE, axis=0, dtype=np.float64)
    false = np.cumsum(outcome == FALSE, axis=0, dtype=np.float64)
    envelope = np.maximum.accumulate((true / np.maximum(true + false, 1))[::-1], axis=0)[::-1]
    result = np.full((len(wanted), len(RECALL_THRESHOLDS)), np.nan)
    for column in np.flatnonzero(wanted):
        reached = np.searchsorted(true[:, column] / wanted[column], RECALL_THRESHOLDS, side="left")
        result[column] = np.append(envelope[:, column], 0.0)[reached]
    return result


def _recall(outcome: np.ndarray, place: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return (C, M)."""
    found = np.array([(outcome[place < limit] == TRUE).sum(axis=0) for limit in LIMITS], dtype=np.float64)
    return np.divide(found, wanted, out=np.full(found.shape, np.nan), where=wanted > 0).T


def average_precision(scores: np.ndarray, label: np.ndarray, true: np.ndarray, wanted: np.ndarray) -> float:
    """Return the mean over the classes of AP, for detections that are true or false already.

    A class that has no objects and no detections left does not count, and AP of no class is 1: nothing was to be found,
    and nothing is false. A class with false detections alone has AP 0.

    Args:
        scores, label, true: (D,); equal scores keep their order.
        wanted: (K,) objects of each class; -1 where the class does not count.
    """
    order = np.lexsort((-scores, label))
    label, outcome = label[order], np.where(true[order], TRUE, FALSE)[:, None]
    values = []
    for k in np.flatnonzero(wanted >= 0):
        own = outcome[slice(*np.searchsorted(label, [k, k + 1]))]
        if wanted[k]:
            values.append(float(_precision(own, wanted[k : k + 1]).mean()))
        elif len(own):
            values.append(0.0)
    return float(np.mean(values)) if values else 1.0

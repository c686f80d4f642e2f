"""Which classes are taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .case import Case
from .errors import FOREGROUND
from .overlaps import Pairs, match, places
from .precision import FALSE, TRUE, Figures


@dataclass(frozen=True, eq=False)
class Confusion:
    """Detections with a least score against objects, at IoU .5.

    Attributes:
        matrix: (K + 1, K + 1) int64: [true class, detected class]. The last row holds detections of no object, which
            includes duplicates; the last column objects that were not detected.
        score: least score of the detections.
        events: (E, 3) int64, what the matrix counts: image, true class, detected class.
    """

    matrix: np.ndarray
    score: float
    events: np.ndarray


def confuse(case: Case, pairs: Pairs, figures: Figures, score: float) -> Confusion:
    """Count confusions: each object belongs to the detection of its own class that found it; the objects left go to
    detections of other classes, the highest score first, at the highest IoU.
    """
    objects, detections = case.objects, case.detections
    classes = len(case.class_names)
    shown = detections.scores >= score
    right = shown & (figures.outcome == TRUE)
    left = ~objects.ignored
    left[figures.taken[right]] = False
    wrong = shown & (figures.outcome == FALSE)
    near = pairs.take((pairs.iou >= FOREGROUND) & wrong[pairs.detection] & left[pairs.object])
    turn = places(detections.scores, detections.image)
    nothing = np.zeros(len(objects), dtype=bool)
    taken = match(near, turn, np.array([FOREGROUND]), nothing[:, None], nothing)[:, 0]
    confused = taken >= 0
    left[taken[confused]] = False
    background = wrong & ~confused
    events = [
        (detections.image[right], detections.label[right], detections.label[right]),
        (detections.image[confused], objects.label[taken[confused]], detections.label[confused]),
        (detections.image[background], np.full(background.sum(), classes), detections.label[background]),
        (objects.image[left], objects.label[left], np.full(left.sum(), classes)),
    ]
    event = np.concatenate([np.stack(columns, axis=1) for columns in events]).astype(np.int64)
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(matrix, (event[:, 1], event[:, 2]), 1)
    return Confusion(matrix, score, event)

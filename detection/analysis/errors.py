"""Kinds of error and what each costs, after TIDE (Bolya et al., A General Toolbox for Identifying Object Detection
Errors, ECCV 2020, arXiv 2008.08115), at IoU .5.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from .case import Case
from .overlaps import Pairs
from .precision import FALSE, IGNORED, TRUE, Figures, average_precision

FOREGROUND, BACKGROUND = 0.5, 0.1
"""IoU from which a box finds an object, and below which it lies on background."""


class Kind(IntEnum):
    """What is wrong with a false detection, or MISS: with an object; NONE: nothing."""

    NONE = -1
    CLS = 0
    LOC = 1
    BOTH = 2
    DUPE = 3
    BKG = 4
    MISS = 5


MEANING = {
    Kind.CLS: ("Cls", "classification", "at IoU .5 or more with an object of another class"),
    Kind.LOC: ("Loc", "localisation", "the right class, but the IoU lies from .1 to .5"),
    Kind.BOTH: ("Both", "class and localisation", "another class, and the IoU lies from .1 to .5"),
    Kind.DUPE: ("Dupe", "duplicate", "of an object that a detection with a higher score has found"),
    Kind.BKG: ("Bkg", "background", "below IoU .1 with every object"),
    Kind.MISS: ("Miss", "missed", "an object that no detection finds, nor a Cls or Loc error nearly"),
}
"""Short name, name and meaning of each kind."""
FALSE_KINDS = (Kind.CLS, Kind.LOC, Kind.BOTH, Kind.DUPE, Kind.BKG)


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of a case.

    Attributes:
        kind: (D,) int8, a Kind of each detection.
        target: (D,) int64: the object that a Cls or Loc detection is taken for, else -1.
        missed: (N,) bool, of the objects.
        ap50: AP at IoU .5 as it is.
        gain: what AP50 gains when the errors of one kind alone are mended.
        gain_false, gain_missed: when every false detection is removed; when every object not found is left out.
        ap50_mended: when all kinds are mended at once: 1.
    """

    kind: np.ndarray
    target: np.ndarray
    missed: np.ndarray
    ap50: float
    gain: dict[Kind, float]
    gain_false: float
    gain_missed: float
    ap50_mended: float

    def counts(self) -> dict[Kind, int]:
        """Return how many errors there are of each kind."""
        found = {kind: int((self.kind == kind).sum()) for kind in FALSE_KINDS}
        return {**found, Kind.MISS: int(self.missed.sum())}


def classify(case: Case, pairs: Pairs, figures: Figures) -> Errors:
    """Find the kind of every error, and what AP50 gains when it is mended.

    The kinds are tried in the order of TIDE's program: Loc, Cls, Dupe, Bkg, else Both. Ignored objects are no targets,
    and detections that take one are no errors. Unlike TIDE, the 100 best detections count for each image and class
    rather than each image, so that AP50 is COCO's.

    Args:
        case: its detections as `in_order` leaves them.
        pairs: with an IoU of BACKGROUND or more.
    """
    pairs = pairs.take(~case.objects.ignored[pairs.object])
    same = case.objects.label[pairs.object] == case.detections.label[pairs.detection]
    number = len(case.detections)
    best_same, object_same = _best(pairs.take(same), number)
    best_other, object_other = _best(pairs.take(~same), number)
    false = figures.outcome == FALSE
    near = (best_same >= BACKGROUND) & (best_same < FOREGROUND)
    rules = [near, best_other >= FOREGROUND, best_same >= FOREGROUND, np.maximum(best_same, best_other) < BACKGROUND]
    kind = np.select(rules, [Kind.LOC, Kind.CLS, Kind.DUPE, Kind.BKG], Kind.BOTH)
    kind = np.where(false, kind, Kind.NONE).astype(np.int8)
    target = np.where(kind == Kind.LOC, object_same, np.where(kind == Kind.CLS, object_other, -1))
    unfound = ~case.objects.ignored
    unfound[figures.taken[figures.outcome == TRUE]] = False
    missed = unfound.copy()
    missed[target[target >= 0]] = False
    return _with_gains(case, figures, kind, target, unfound, missed)


def _best(pairs: Pairs, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest IoU (0 of nothing) of each detection and its object (-1); of equal ones the first object."""
    iou, index = np.zeros(number), np.full(number, -1, dtype=np.int64)
    order = np.lexsort((-pairs.object, pairs.iou, pairs.detection))
    # The last of a detection's pairs stays.
    iou[pairs.detection[order]] = pairs.iou[order]
    index[pairs.detection[order]] = pairs.object[order]
    return iou, index


def _with_gains(
    case: Case, figures: Figures, kind: np.ndarray, target: np.ndarray, unfound: np.ndarray, missed: np.ndarray
) -> Errors:
    oracle = _Oracle(case, figures, kind, _mendable(case, target, unfound), target)
    as_it_is = oracle.ap()
    gain = {one: oracle.ap(mend=(one,)) - as_it_is for one in FALSE_KINDS}
    gain[Kind.MISS] = oracle.ap(leave_out=missed) - as_it_is
    return Errors(
        kind=kind,
        target=target,
        missed=missed,
        ap50=as_it_is,
        gain=gain,
        gain_false=oracle.ap(mend=FALSE_KINDS, remove=True) - as_it_is,
        gain_missed=oracle.ap(leave_out=unfound) - as_it_is,
        ap50_mended=oracle.ap(mend=FALSE_KINDS, leave_out=missed),
    )


def _mendable(case: Case, target: np.ndarray, unfound: np.ndarray) -> np.ndarray:
    """Return (D,) bool: the best-scored Cls or Loc detection of each object not found; mended, the others would be
    duplicates.
    """
    rows = np.flatnonzero(target >= 0)
    rows = rows[unfound[target[rows]]]
    rows = rows[np.argsort(-case.detections.scores[rows], kind="stable")]
    _, first = np.unique(target[rows], return_index=True)
    result = np.zeros(len(target), dtype=bool)
    result[rows[first]] = True
    return result


@dataclass(frozen=True, eq=False)
class _Oracle:
    """AP50 with chosen errors mended."""

    case: Case
    figures: Figures
    kind: np.ndarray
    mendable: np.ndarray
    target: np.ndarray

    def ap(self, mend: tuple[Kind, ...] = (), *, remove: bool = False, leave_out: np.ndarray | None = None) -> float:
        """Return AP50 with kinds mended: Cls and Loc detections become right where that makes no duplicate; what
        cannot become right is removed.

        Args:
            remove: remove all of them.
            leave_out: (N,) bool, objects that need not be found.
        """
        objects, detections = self.case.objects, self.case.detections
        chosen = np.isin(self.kind, mend)
        mended = chosen & self.mendable & (not remove)
        keep = (self.figures.outcome != IGNORED) & (~chosen | mended)
        true = (self.figures.outcome == TRUE) | mended
        label = detections.label.copy()
        corrected = mended & (self.kind == Kind.CLS)
        label[corrected] = objects.label[self.target[corrected]]
        classes = len(self.case.class_names)
        counted = ~objects.ignored
        present = np.bincount(objects.label[counted], minlength=classes) > 0
        if not present.any():
            return float("nan")
        counted = counted if leave_out is None else counted & ~leave_out
        wanted = np.where(present, np.bincount(objects.label[counted], minlength=classes), -1)
        return average_precision(detections.scores[keep], label[keep], true[keep], wanted)

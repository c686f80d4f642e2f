"""How precision, recall and F1 depend on the least score, and how far scores can be believed; at IoU .5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .precision import FALSE, IGNORED, TRUE

STEPS = 50
"""Steps from the lowest to the highest threshold of a sweep."""
BINS = 10


@dataclass(frozen=True, eq=False)
class Sweep:
    """Precision, recall and F1 (S,) of the detections with `thresholds` (S,) or more; precision of nothing is NaN."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """(S,): the harmonic mean; 0 where nothing is right."""
        precision = np.nan_to_num(self.precision)
        both = precision + np.nan_to_num(self.recall)
        return np.divide(2 * precision * self.recall, both, out=np.zeros_like(both), where=both > 0)


def sweep(scores: np.ndarray, outcome: np.ndarray, wanted: int, thresholds: np.ndarray) -> Sweep:
    """Return the sweep of detections over `thresholds`.

    Args:
        scores, outcome: (D,), in any order; what is ignored does not count.
        wanted: number of objects.
    """
    counts = []
    for value in (TRUE, FALSE):
        sorted_scores = np.sort(scores[outcome == value])
        counts.append(len(sorted_scores) - np.searchsorted(sorted_scores, thresholds, side="left"))
    true, false = (np.asarray(count, dtype=np.float64) for count in counts)
    precision = np.divide(true, true + false, out=np.full(len(true), np.nan), where=true + false > 0)
    recall = true / wanted if wanted else np.full(len(true), np.nan)
    return Sweep(np.asarray(thresholds, dtype=np.float64), precision, recall)


def best_score(scores: np.ndarray, outcome: np.ndarray, wanted: int) -> float:
    """Return the score whose detections, with all better ones, have the best F1; NaN where none is right."""
    candidates = np.unique(scores[outcome == TRUE])
    if not len(candidates) or not wanted:
        return float("nan")
    f1 = sweep(scores, outcome, wanted, candidates).f1
    # The highest of equal ones.
    return float(candidates[len(f1) - 1 - np.argmax(f1[::-1])])


def grid(scores: np.ndarray) -> np.ndarray:
    """Return thresholds (STEPS + 1,) from 0 to 1, or over the range of scores that go beyond."""
    low, high = (min(0.0, float(scores.min())), max(1.0, float(scores.max()))) if len(scores) else (0.0, 1.0)
    return np.linspace(low, high, STEPS + 1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Detections in B bins of score: how many (B,), their mean score and the part that is right (NaN of nothing).

    `error` is the expected calibration error: the mean of |score - part that is right| over the detections.
    """

    number: np.ndarray
    score: np.ndarray
    right: np.ndarray
    error: float


def calibrate(scores: np.ndarray, outcome: np.ndarray) -> Calibration | None:
    """Return the calibration in BINS bins of equal width; None where scores are no probabilities."""
    counted = outcome != IGNORED
    scores, true = scores[counted], outcome[counted] == TRUE
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return None
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    number = np.bincount(place, minlength=BINS).astype(np.float64)
    sums = [np.bincount(place, values, minlength=BINS) for values in (scores, true.astype(np.float64))]
    score, right = (np.divide(total, number, out=np.full(BINS, np.nan), where=number > 0) for total in sums)
    error = float(np.nansum(number * np.abs(score - right)) / number.sum())
    return Calibration(number.astype(np.int64), score, right, error)

"""The whole error analysis of a case."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backbone.common.confusion import most_confused
from backbone.common.text import table

from .case import Case
from .confusion import Confusion, confuse
from .errors import BACKGROUND, FALSE_KINDS, MEANING, Errors, Kind, classify
from .overlaps import find_pairs, in_order
from .precision import AREAS, AT_50, AT_75, LIMITS, TRUE, Figures, mean, measure
from .scores import Calibration, Sweep, best_score, calibrate, grid, sweep

LOST_TO = {
    Kind.CLS: "wrong classes",
    Kind.LOC: "inexact boxes",
    Kind.BOTH: "wrong classes with inexact boxes",
    Kind.DUPE: "duplicates",
    Kind.BKG: "detections of background",
    Kind.MISS: "missed objects",
}
# Of AP50: what the page, with one decimal of per cent, shows as 0.0.
LEAST_COST = 0.0005


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a report shows.

    Attributes:
        case: its detections limited to the 100 best of each image and class, by class and falling score.
        score: detections below it are left out where a number depends on a least score.
        best_score: the score of best F1, all classes together; NaN where nothing is right.
        score_chosen: whether `score` is that one rather than the user's.
        wanted: (K,) objects of each class that are not ignored.
        sweep, class_sweeps: over the least score, of all classes together and of each class.
        class_scores: least score of best F1, of each class; NaN where none is right.
        shown_missed: (N,) bool: objects that no detection of `score` or more finds, nor a Cls or Loc error nearly.
        shown_false: (D,) bool: errors of `score` or more.
    """

    case: Case
    figures: Figures
    errors: Errors
    confusion: Confusion
    score: float
    best_score: float
    score_chosen: bool
    wanted: np.ndarray
    sweep: Sweep
    class_sweeps: list[Sweep]
    class_scores: list[float]
    calibration: Calibration | None
    shown_missed: np.ndarray
    shown_false: np.ndarray

    def summary(self) -> dict[str, float]:
        """Return COCO's twelve figures; NaN where there is no object."""
        figures = self.figures
        short = {f"AP{name[0]}": figures.ap(area=place) for place, name in enumerate(AREAS) if place}
        recalls = {f"AR{limit}": mean(figures.recall[:, :, 0, place]) for place, limit in enumerate(LIMITS)}
        of_areas = {f"AR{name[0]}": mean(figures.recall[:, :, place, -1]) for place, name in enumerate(AREAS) if place}
        return {
            "AP": figures.ap(),
            "AP50": figures.ap(AT_50),
            "AP75": figures.ap(AT_75),
            **short,
            **recalls,
            **of_areas,
        }

    @property
    def costs(self) -> str:
        """What costs most, in a sentence: "Most AP50 is lost to missed objects, 9.0; then to ..., 3.1"."""
        gains = sorted(((gain, kind) for kind, gain in self.errors.gain.items() if gain >= LEAST_COST), reverse=True)
        if self.errors.ap50 != self.errors.ap50:
            return "There are no objects to find."
        if not gains:
            return f"No kind of error costs {100 * LEAST_COST:g} points of AP50 or more."
        first, *others = (f"{LOST_TO[kind]}, {100 * gain:.1f}" for gain, kind in gains[:3])
        return f"Most AP50 is lost to {first}{'; then to ' if others else ''}{', and to '.join(others)}."

    def shown_counts(self) -> dict[Kind, int]:
        """Return the errors of each kind among the detections of `score` or more."""
        kinds = self.errors.kind[self.shown_false]
        return {**{kind: int((kinds == kind).sum()) for kind in FALSE_KINDS}, Kind.MISS: int(self.shown_missed.sum())}

    def class_counts(self) -> np.ndarray:
        """Return the errors among the detections of `score` or more, (K, 6) int64, in the order of Kind."""
        result = np.zeros((len(self.case.class_names), len(MEANING)), dtype=np.int64)
        labels = self.case.detections.label[self.shown_false]
        np.add.at(result, (labels, self.errors.kind[self.shown_false].astype(np.int64)), 1)
        np.add.at(result, (self.case.objects.label[self.shown_missed], int(Kind.MISS)), 1)
        return result

    def table(self) -> str:
        """Return the kinds of error as a Markdown table: gain of AP50, and number of all and of the shown ones."""
        counts, shown = self.errors.counts(), self.shown_counts()
        rows = [
            [name, title, self.errors.gain[kind], counts[kind], shown[kind]]
            for kind, (name, title, _) in MEANING.items()
        ]
        header = ["kind", "of error", "dAP50", "all scores", f"score >= {self.score:.3g}"]
        return table(rows, header, digits=3)

    def to_json(self) -> dict[str, Any]:
        """Return the kinds of error, the confusions and the least score, for scripts."""
        counts, shown = self.errors.counts(), self.shown_counts()
        names = self.case.class_names
        kinds = {
            name: {"count": counts[kind], "count_at_score": shown[kind], "dAP50": self.errors.gain[kind]}
            for kind, (name, _, _) in MEANING.items()
        }
        at = sweep(self.case.detections.scores, self.figures.outcome, int(self.wanted.sum()), np.array([self.score]))
        return {
            "score": self.score,
            "at_score": {"precision": float(at.precision[0]), "recall": float(at.recall[0]), "F1": float(at.f1[0])},
            "AP50": self.errors.ap50,
            "kinds": kinds,
            "false_positive_dAP50": self.errors.gain_false,
            "false_negative_dAP50": self.errors.gain_missed,
            "confusions": [
                {"truth": names[truth], "detected": names[found], "count": number}
                for truth, found, number in most_confused(self.confusion.matrix, len(self.case.class_names), 50)
            ],
        }


def analyze(case: Case, *, score: float | None = None) -> Analysis:
    """Analyse a case.

    Args:
        score: least score for what depends on one: confusions, errors of each class, worst images. By default the one
            with the best F1 of all classes together at IoU .5.
    """
    detections, place = in_order(case.detections, LIMITS[-1])
    case = replace(case, detections=detections)
    pairs = find_pairs(case, BACKGROUND)
    figures = measure(case, pairs, place)
    errors = classify(case, pairs, figures)
    wanted = np.bincount(case.objects.label[~case.objects.ignored], minlength=len(case.class_names))
    best = best_score(detections.scores, figures.outcome, int(wanted.sum()))
    least = float(np.nan_to_num(best)) if score is None else score
    thresholds = grid(detections.scores)
    slices = [slice(*np.searchsorted(detections.label, [label, label + 1])) for label in range(len(wanted))]
    of_class = [(detections.scores[rows], figures.outcome[rows], int(number)) for rows, number in zip(slices, wanted)]
    shown = detections.scores >= least
    return Analysis(
        case=case,
        figures=figures,
        errors=errors,
        confusion=confuse(case, pairs, figures, least),
        score=least,
        best_score=best,
        score_chosen=score is None,
        wanted=wanted,
        sweep=sweep(detections.scores, figures.outcome, int(wanted.sum()), thresholds),
        class_sweeps=[sweep(*columns, thresholds) for columns in of_class],
        class_scores=[best_score(*columns) for columns in of_class],
        calibration=calibrate(detections.scores, figures.outcome),
        shown_missed=_missed(case, figures, errors, shown),
        shown_false=shown & (errors.kind != Kind.NONE),
    )


def _missed(case: Case, figures: Figures, errors: Errors, shown: np.ndarray) -> np.ndarray:
    missed = ~case.objects.ignored
    missed[figures.taken[shown & (figures.outcome == TRUE)]] = False
    missed[errors.target[shown & (errors.target >= 0)]] = False
    return missed

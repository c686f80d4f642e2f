"""Figures of the analysis against evaluate_coco, and what depends on the least score, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hand_made import BESIDE, BOX, FAR, make_case

sys.path.append(str(Path(__file__).resolve().parents[1] / "evaluation"))
from coco_cases import random_case

from backbone.common.confusion import most_confused, row_shares
from detection.analysis import analyze, case_of_coco
from detection.analysis.scores import best_score, calibrate, sweep
from detection.evaluation import evaluate_coco, load_ground_truth, load_predictions


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_pycocotools_ones(seed):
    truth, found = random_case("bbox", seed, crowded=seed % 3 == 0)
    ground_truth = load_ground_truth(truth)
    analysis = analyze(case_of_coco(ground_truth, load_predictions(found, ground_truth), truth))
    reference = evaluate_coco(truth, found, engine="pycocotools")
    precision, recall = (np.where(of < 0, np.nan, of) for of in (reference.precision[..., -1], reference.recall))
    np.testing.assert_allclose(analysis.figures.precision, precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(analysis.figures.recall, recall, rtol=0, atol=1e-12)
    summary = {name: np.nan if value < 0 else value for name, value in reference.summary.items()}
    assert analysis.summary() == pytest.approx(summary, abs=1e-12, nan_ok=True)
    assert analysis.errors.ap50 == pytest.approx(reference.summary["AP50"], abs=1e-12)


def test_confusion_by_hand():
    objects = [(0, 0, BOX), (0, 1, FAR), (1, 1, BOX), (1, 0, FAR, "difficult")]
    detections = [
        (0, 0, BOX, 0.9),  # right
        (0, 0, FAR, 0.8),  # class 1 taken for class 0
        (0, 0, BOX, 0.7),  # duplicate
        (1, 0, FAR, 0.9),  # of an ignored object
        (1, 1, BESIDE, 0.6),  # beside
        (1, 1, BOX, 0.1),  # right, below the least score
    ]
    matrix = analyze(make_case(objects, detections), score=0.5).confusion
    np.testing.assert_array_equal(matrix.matrix, [[1, 0, 0], [1, 0, 1], [1, 1, 0]])
    np.testing.assert_allclose(row_shares(matrix.matrix), [[1, 0, 0], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    assert most_confused(matrix.matrix, 2, 5) == [(1, 0, 1)]
    with_all = analyze(make_case(objects, detections), score=0.0).confusion
    np.testing.assert_array_equal(with_all.matrix, [[1, 0, 0], [1, 1, 0], [1, 1, 0]])


def test_an_object_is_confused_once():
    """Two detections of a wrong class on one object: one confusion, one false detection on nothing."""
    case = make_case([(0, 0, BOX)], [(0, 1, BOX, 0.9), (0, 1, BOX, 0.8)])
    np.testing.assert_array_equal(analyze(case, score=0).confusion.matrix, [[0, 1, 0], [0, 0, 0], [0, 1, 0]])


def test_best_score_is_that_of_the_best_f1():
    rng = np.random.default_rng(3)
    scores = rng.random(200).round(2)
    outcome = np.where(rng.random(200) < scores, 1, 0)
    outcome[rng.random(200) < 0.1] = -1
    best = best_score(scores, outcome, 150)

    def f1(least):
        true, false = (int(((scores >= least) & (outcome == value)).sum()) for value in (1, 0))
        return 2 * true / (true + false + 150)

    assert f1(best) == max(f1(least) for least in np.unique(scores))
    at = sweep(scores, outcome, 150, [best])
    assert at.f1[0] == pytest.approx(f1(best))


def test_score_is_chosen_or_given():
    case = make_case([(0, 0, BOX)], [(0, 0, BOX, 0.7), (0, 0, FAR, 0.3)])
    chosen = analyze(case)
    assert (chosen.score, chosen.score_chosen, sum(chosen.shown_counts().values())) == (0.7, True, 0)
    given = analyze(case, score=0.2)
    assert (given.score, given.score_chosen, sum(given.shown_counts().values())) == (0.2, False, 1)


def test_calibration_by_hand():
    found = calibrate(np.array([0.95, 0.91, 0.15, 0.5]), np.array([1, 0, 0, -1]))
    assert found.number.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.right[9] == 0.5
    assert found.error == pytest.approx((2 * abs(0.93 - 0.5) + 0.15) / 3)
    assert calibrate(np.array([3.0]), np.array([1])) is None

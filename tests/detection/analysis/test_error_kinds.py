"""Kinds of error on cases where each is known, and what mending them gains."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hand_made import BESIDE, BOX, FAR, make_case
from planted import plant

from detection.analysis import MEANING, Analysis, Kind, analyze, case_of_coco
from detection.evaluation import load_ground_truth, load_predictions


def kinds(analysis: Analysis) -> dict[str, int]:
    return {MEANING[kind][0]: number for kind, number in analysis.errors.counts().items() if number}


@pytest.mark.parametrize(
    ("objects", "detections", "expected"),
    [
        ([(0, 0, BOX)], [(0, 0, BOX, 0.9)], {}),
        ([(0, 0, BOX)], [(0, 1, BOX, 0.9)], {"Cls": 1}),
        ([(0, 0, BOX)], [(0, 0, BESIDE, 0.9)], {"Loc": 1}),
        ([(0, 0, BOX)], [(0, 1, BESIDE, 0.9)], {"Both": 1, "Miss": 1}),
        ([(0, 0, BOX)], [(0, 0, BOX, 0.9), (0, 0, BOX, 0.8)], {"Dupe": 1}),
        ([(0, 0, BOX)], [(0, 0, BOX, 0.9), (0, 1, FAR, 0.8)], {"Bkg": 1}),
        ([(0, 0, BOX)], [(1, 0, BOX, 0.9)], {"Bkg": 1, "Miss": 1}),
        ([(0, 0, BOX)], [], {"Miss": 1}),
        # The object is found, and a second box of it lies aside: a localisation error, as in TIDE's program.
        ([(0, 0, BOX)], [(0, 0, BOX, 0.9), (0, 0, BESIDE, 0.8)], {"Loc": 1}),
        # The right class beside comes before the wrong class on the spot.
        ([(0, 0, BESIDE), (0, 1, BOX)], [(0, 0, BOX, 0.9)], {"Loc": 1, "Miss": 1}),
        # Finding what is ignored, even twice, is no error; nor is missing it.
        ([(0, 0, BOX, "difficult")], [(0, 0, BOX, 0.9), (0, 0, BOX, 0.8)], {}),
        ([(0, 0, BOX, "difficult")], [], {}),
        # Inside a crowd, whose box is much larger: the overlap counts over the detection's area.
        ([(0, 0, (0, 0, 500, 500), "crowd")], [(0, 0, BOX, 0.9)], {}),
        ([(0, 0, (0, 0, 500, 500), "difficult")], [(0, 0, BOX, 0.9)], {"Bkg": 1}),
        # What is ignored is nobody's target.
        ([(0, 0, BOX, "difficult")], [(0, 1, BOX, 0.9)], {"Bkg": 1}),
    ],
)
def test_each_kind(objects, detections, expected):
    assert kinds(analyze(make_case(objects, detections))) == expected


def test_gains_by_hand():
    """Class 0 has AP 1/2 of its two objects; each gain follows from the definition of AP at 101 recalls."""
    objects = [(0, 0, BOX), (1, 0, BOX)]
    analysis = analyze(make_case(objects, [(0, 0, BOX, 0.9), (1, 0, BESIDE, 0.8)]))
    half = 51 / 101
    assert analysis.errors.ap50 == pytest.approx(half)
    gain = analysis.errors.gain
    assert gain[Kind.LOC] == pytest.approx(1 - half)
    assert all(gain[kind] == 0 for kind in gain if kind != Kind.LOC)
    # The false detection comes last: removing it gains nothing; leaving the object out gains all.
    assert analysis.errors.gain_false == 0
    assert analysis.errors.gain_missed == pytest.approx(1 - half)


def test_a_mended_detection_makes_no_duplicate():
    """Two boxes beside one of two objects: mended, the better one becomes right and the other is removed."""
    detections = [(0, 0, BESIDE, 0.9), (0, 0, (50.0, 100, 100, 100), 0.8)]
    analysis = analyze(make_case([(0, 0, BOX), (1, 0, BOX)], detections))
    assert kinds(analysis) == {"Loc": 2, "Miss": 1}
    assert analysis.errors.ap50 == 0
    assert analysis.errors.gain[Kind.LOC] == pytest.approx(51 / 101)


def test_false_detections_before_right_ones_cost_precision():
    detections = [(0, 0, FAR, 0.9), (0, 0, BOX, 0.5)]
    analysis = analyze(make_case([(0, 0, BOX)], detections))
    assert analysis.errors.ap50 == pytest.approx(0.5)
    assert analysis.errors.gain[Kind.BKG] == pytest.approx(0.5)
    assert analysis.errors.gain_false == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(4))
def test_mending_everything_gives_ap_1(seed):
    rng = np.random.default_rng(seed)

    def box():
        return (*rng.uniform(0, 300, 2), *rng.uniform(20, 200, 2))

    objects = [(int(rng.integers(5)), int(rng.integers(3)), box()) for _ in range(30)]
    detections = [(int(rng.integers(5)), int(rng.integers(3)), box(), float(rng.random())) for _ in range(150)]
    errors = analyze(make_case(objects, detections, classes=3, images=5)).errors
    assert errors.ap50 < 0.5
    assert errors.ap50_mended == 1
    assert all(-1e-12 <= gain <= 1 - errors.ap50 for gain in errors.gain.values())
    # Each false detection has one kind, and each object is found, nearly found, or missed.
    assert sum(errors.counts().values()) == (errors.kind != Kind.NONE).sum() + errors.missed.sum()


@pytest.mark.parametrize("seed", [1, 2])
def test_kinds_planted_in_coco_come_out(shared_data, seed):
    source = shared_data / "coco" / "annotations" / "instances_val2017.json"
    truth = json.loads(source.read_text(encoding="utf-8"))
    found, planted = plant(truth, seed, clean=True)
    ground_truth = load_ground_truth(truth)
    analysis = analyze(case_of_coco(ground_truth, load_predictions(found, ground_truth), truth))
    right = planted.pop("Right")
    assert sum(planted.values()) > 30
    assert kinds(analysis) == dict(planted)
    assert (analysis.figures.outcome == 1).sum() == right + planted["Dupe"]


def test_of_nothing():
    nothing = analyze(make_case([], []))
    assert kinds(nothing) == {}
    assert np.isnan(nothing.errors.ap50)
    false = analyze(make_case([], [(0, 0, BOX, 0.9)]))
    assert kinds(false) == {"Bkg": 1}
    missed = analyze(make_case([(0, 0, BOX)], []))
    assert (missed.errors.ap50, missed.errors.ap50_mended) == (0, 1)

"""The learning rate by iteration, and how it follows the batch size."""

from __future__ import annotations

import math
import random

import pytest

import detection
from backbone.classification import load_config
from backbone.classification.session import schedule_of
from backbone.engine.config import differences, get
from backbone.engine.scale import ITERATION_KEYS, RATE_KEY, scale_schedule
from backbone.engine.schedule import Cosine, MultiStep, Plateau, Poly, WarmUp, WarmUpByError

SCHEDULE = {
    "SOLVER.REFERENCE_BATCH_SIZE": 16,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.MAX_ITER": 90000,
    "SOLVER.STEPS": (60000, 80000),
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.CHECKPOINT_PERIOD": 5000,
    "TEST.EVAL_PERIOD": 0,
}


def config(**changes: object):
    values = {**SCHEDULE, **{key.replace("__", "."): value for key, value in changes.items()}}
    return detection.get_config("mini_faster_rcnn_r18", [part for pair in values.items() for part in pair])


def figures(scaled) -> list[object]:
    return [get(scaled, key) for key in (RATE_KEY, *ITERATION_KEYS)]


# -- the functions of the iteration


def test_linear_warm_up_reaches_the_rate():
    warm_up = WarmUp(100, 0.1)
    assert warm_up.multiplier(0) == pytest.approx(0.1)
    assert warm_up.multiplier(50) == pytest.approx(0.55)
    assert warm_up.multiplier(99) < 1
    assert warm_up.multiplier(100) == warm_up.multiplier(10**6) == 1


def test_constant_warm_up():
    warm_up = WarmUp(100, 0.1, "constant")
    assert {warm_up.multiplier(iteration) for iteration in range(100)} == {0.1}
    assert warm_up.multiplier(100) == 1


def test_no_warm_up():
    assert WarmUp(0).multiplier(0) == 1


def test_steps_take_effect_at_their_iteration():
    schedule = MultiStep((10, 20), 0.1)
    rates = [schedule.multiplier(iteration) for iteration in (0, 9, 10, 19, 20, 1000)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert MultiStep(()).multiplier(10**9) == 1


def test_warm_up_and_steps_multiply():
    schedule = MultiStep((5,), 0.5, WarmUp(10, 0.0))
    assert schedule.multiplier(6) == pytest.approx(0.5 * 0.6)


def test_cosine():
    schedule = Cosine(100, end=0.2)
    assert schedule.multiplier(0) == pytest.approx(1)
    assert schedule.multiplier(50) == pytest.approx(0.6)
    assert schedule.multiplier(25) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.multiplier(100) == schedule.multiplier(500) == pytest.approx(0.2)
    assert Cosine(0).multiplier(0) == 1


def test_poly_falls_to_nothing():
    schedule = Poly(100, 0.9, WarmUp(10, 0.1))
    assert schedule.multiplier(0) == 0.1 and schedule.multiplier(100) == schedule.multiplier(120) == 0
    assert [schedule.multiplier(step) for step in (10, 50, 99)] == pytest.approx([0.9**0.9, 0.5**0.9, 0.01**0.9])
    assert Poly(4, 1.0).multiplier(1) == 0.75


# -- the linear rule


def test_half_the_batch_half_the_rate_twice_the_iterations():
    scaled, notes = scale_schedule(config(SOLVER__IMS_PER_BATCH=8))
    assert figures(scaled) == [0.01, 180000, (120000, 160000), 2000, 10000, 0]
    assert len(notes) == 1
    assert "batch 8 instead of 16" in notes[0]
    for said in ("SOLVER.BASE_LR 0.02 -> 0.01", "SOLVER.MAX_ITER 90000 -> 180000", "SOLVER.WARMUP_ITERS 1000 -> 2000"):
        assert said in notes[0]
    assert "EVAL_PERIOD" not in notes[0]


def test_a_batch_that_does_not_divide():
    scaled, _ = scale_schedule(config(SOLVER__IMS_PER_BATCH=6, TEST__EVAL_PERIOD=1))
    assert figures(scaled) == [
        pytest.approx(0.02 * 6 / 16),
        240000,
        (160000, round(80000 * 16 / 6)),
        round(1000 * 16 / 6),
        round(5000 * 16 / 6),
        3,
    ]


def test_no_period_becomes_nothing():
    scaled, _ = scale_schedule(config(SOLVER__IMS_PER_BATCH=1600, SOLVER__MAX_ITER=10, SOLVER__STEPS=(1,)))
    assert (scaled.SOLVER.MAX_ITER, scaled.SOLVER.STEPS) == (1, (1,))


def test_images_seen_stay_the_same():
    for batch in (2, 4, 64):
        scaled, _ = scale_schedule(config(SOLVER__IMS_PER_BATCH=batch))
        assert scaled.SOLVER.MAX_ITER * batch == 90000 * 16
        assert scaled.SOLVER.BASE_LR / batch == pytest.approx(0.02 / 16)


@pytest.mark.parametrize(
    ("batch", "longest", "expected"), [(8, 80_000, 500), (2, 4000, 100), (1, 80_000, 0), (8, 80, 0)]
)
def test_a_larger_batch_warms_up_where_the_schedule_does_not(batch, longest, expected):
    paper = ["SOLVER.IMS_PER_BATCH", batch, "SOLVER.MAX_ITER", longest, "SOLVER.STEPS", (3 * longest // 4,)]
    scaled, notes = scale_schedule(detection.get_config("voc_paper_r101_07.yaml", paper))
    solver = scaled.SOLVER
    assert (pytest.approx(batch * 1e-3), expected) == (solver.BASE_LR, solver.WARMUP_ITERS)
    assert not expected or pytest.approx(1e-3) == solver.BASE_LR * solver.WARMUP_FACTOR
    assert any(f"SOLVER.WARMUP_ITERS 0 -> {expected}" in note for note in notes) == bool(expected)
    asked = scale_schedule(detection.get_config("voc_paper_r101_07.yaml", paper), {"SOLVER.WARMUP_ITERS"})[0]
    assert asked.SOLVER.WARMUP_ITERS == 0


def test_a_warm_up_by_error_is_no_other_warm_up():
    scaled, _ = scale_schedule(load_config("cifar10_resnet110", ["SOLVER.IMS_PER_BATCH", 1024]))
    assert (scaled.SOLVER.WARMUP_ITERS, scaled.SOLVER.WARMUP_FACTOR) == (0, 0.1)


def test_the_reference_batch_changes_nothing():
    before = config()
    scaled, notes = scale_schedule(before)
    assert scaled is before
    assert notes == []


def test_scaling_twice_changes_nothing():
    once, _ = scale_schedule(config(SOLVER__IMS_PER_BATCH=2))
    assert once.is_frozen()
    twice, notes = scale_schedule(once)
    assert differences(once, twice) == []
    assert notes == []


def test_what_the_command_line_gives_is_taken_as_it_stands():
    given = {"SOLVER.MAX_ITER", "SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH"}
    scaled, notes = scale_schedule(config(SOLVER__IMS_PER_BATCH=8), given)
    assert figures(scaled) == [0.02, 90000, (120000, 160000), 2000, 10000, 0]
    assert "taken as given on the command line" in notes[-1]
    assert "SOLVER.MAX_ITER 90000" in notes[-1]
    assert "SOLVER.BASE_LR 0.02" in notes[-1]
    assert "SOLVER.MAX_ITER" not in notes[0]


def test_auto_scale_false_turns_it_off():
    before = config(SOLVER__IMS_PER_BATCH=2, SOLVER__AUTO_SCALE=False)
    scaled, notes = scale_schedule(before)
    assert differences(before, scaled) == []
    assert notes == []


def test_the_config_given_is_not_changed():
    before = config(SOLVER__IMS_PER_BATCH=8)
    scale_schedule(before)
    assert figures(before) == [SCHEDULE[key] for key in (RATE_KEY, *ITERATION_KEYS)]


def test_plateau_drops_when_the_error_stays():
    plateau = Plateau("1crop/top1_error", gamma=0.1, patience=2, drops=2)
    for error in (0.5, 0.4):
        plateau.evaluated({"1crop": {"top1_error": error}})
    assert plateau.multiplier(10) == 1
    plateau.evaluated({"1crop": {"top1_error": 0.4}})
    assert plateau.multiplier(11) == 1
    plateau.evaluated({"1crop": {"top1_error": 0.4}})
    assert plateau.multiplier(12) == pytest.approx(0.1)
    again = Plateau("1crop/top1_error", gamma=0.1, patience=2, drops=2)
    again.load_state_dict(plateau.state_dict())
    for schedule in (plateau, again):
        for _ in range(6):
            schedule.evaluated({"1crop": {"top1_error": 0.41}})
        assert schedule.multiplier(20) == pytest.approx(0.01)


# Fig. 4 of the paper, ResNet-34, at each rate: the validation error at its end, how much it falls, in how many epochs,
# and the noise of an evaluation.
FIG_4 = ((0.38, 0.45, 6, 0.006), (0.285, 0.045, 3, 0.002), (0.262, 0.02, 2.5, 0.001), (0.26, 0.0, 1, 0.001))


@pytest.mark.parametrize("seed", range(20))
def test_a_curve_of_the_papers_form_drops_where_the_papers_does(seed):
    config = load_config("imagenet_resnet34_a.yaml")
    schedule, noise = schedule_of(config), random.Random(seed)
    drops, last = [], 0
    for evaluation in range(1, config.SOLVER.MAX_ITER // config.TEST.EVAL_PERIOD + 1):
        end, fall, epochs, spread = FIG_4[len(drops)]
        error = end + fall * math.exp(-(evaluation - last) / epochs) + noise.gauss(0, spread)
        before = schedule.multiplier(0)
        schedule.evaluated({"1crop": {"top1_error": error}})
        if schedule.multiplier(0) < before:
            drops.append(evaluation * config.TEST.EVAL_PERIOD)
            last = evaluation
    assert drops[0] == pytest.approx(15e4, abs=4e4) and drops[1] == pytest.approx(30e4, abs=5e4)
    assert len(drops) == 3 and schedule.multiplier(0) == pytest.approx(1e-3)


def test_every_rate_lasts_its_least_number_of_evaluations():
    plateau = Plateau("1crop/top1_error", patience=2, least=5)
    rates = []
    for _ in range(11):
        plateau.evaluated({"1crop": {"top1_error": 0.5}})
        rates.append(round(plateau.multiplier(0), 6))
    assert rates == [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]


def test_warm_up_until_the_training_error_falls():
    schedule = WarmUpByError(MultiStep((100,)), factor=0.1, error=0.8)
    steps = 0
    while schedule.watching:
        assert schedule.multiplier(steps) == pytest.approx(0.1)
        schedule.observe({"train_error": 0.9 if steps < 50 else 0.5})
        steps += 1
    assert 50 < steps < 70
    assert schedule.multiplier(steps) == 1 and schedule.multiplier(100) == pytest.approx(0.1)
    again = WarmUpByError(MultiStep((100,)), factor=0.1, error=0.8)
    again.load_state_dict(schedule.state_dict())
    assert not again.watching

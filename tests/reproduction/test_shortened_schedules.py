"""--scale on schedules."""

from __future__ import annotations

import pytest

from backbone.classification import load_config
from reproduction.schedule import shorten


def pairs(overrides):
    return dict(zip(overrides[::2], overrides[1::2]))


def test_all_that_counts_iterations_shrinks_in_proportion():
    new = pairs(shorten(load_config("cifar10_resnet110"), 0.25, ()))
    assert new["SOLVER.MAX_ITER"] == 16000
    assert new["SOLVER.STEPS"] == (8000, 12000)
    assert new["SOLVER.CHECKPOINT_PERIOD"] == 1600
    assert "SOLVER.WARMUP_ITERS" not in new


def test_warm_up_shrinks():
    config = load_config("cifar10_resnet20", ["SOLVER.WARMUP_ITERS", 400])
    assert pairs(shorten(config, 0.1, ()))["SOLVER.WARMUP_ITERS"] == 40


@pytest.mark.parametrize(("name", "most"), [("cifar10_resnet20", 10), ("imagenet_resnet50", 30)])
def test_a_short_run_does_not_spend_its_time_on_tests(name, most):
    new = pairs(shorten(load_config(name), 0.01, ()))
    assert new["SOLVER.MAX_ITER"] / new["TEST.EVAL_PERIOD"] == pytest.approx(most, abs=1)
    # A quarter of the evaluations at each rate, as in the whole schedule.
    assert new.get("SOLVER.PLATEAU_MIN_EVALUATIONS") == (8 if name.startswith("imagenet") else None)


def test_nothing_falls_below_one_step():
    new = pairs(shorten(load_config("cifar10_resnet20"), 1e-9, ()))
    assert new["SOLVER.MAX_ITER"] == 1
    assert new["SOLVER.LOG_PERIOD"] == new["TEST.EVAL_PERIOD"] == 1


def test_what_the_user_set_stands():
    config = load_config("cifar10_resnet20", ["SOLVER.MAX_ITER", 100])
    new = pairs(shorten(config, 0.01, {"SOLVER.MAX_ITER"}))
    assert "SOLVER.MAX_ITER" not in new
    assert new["SOLVER.STEPS"] == (320, 480)


def test_the_shortened_schedule_is_a_config_that_loads():
    new = shorten(load_config("imagenet_resnet50"), 0.01, ())
    config = load_config("imagenet_resnet50", [str(part) for part in new])
    assert config.SOLVER.MAX_ITER == 6000
    assert config.SOLVER.STEPS == (1500, 3000, 4500)


def test_the_whole_schedule_is_left_alone():
    assert shorten(load_config("cifar10_resnet20"), 1, ()) == []

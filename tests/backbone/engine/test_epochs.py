"""SOLVER.EPOCHS: the length of a schedule from the data, and everything else in proportion."""

from __future__ import annotations

import pytest
from yacs.config import CfgNode

from backbone import ConfigError
from backbone.engine.defaults import add_shared_defaults
from backbone.engine.epochs import fit_epochs
from backbone.engine.scale import scale_schedule


def config(**solver: object) -> CfgNode:
    node = CfgNode()
    add_shared_defaults(node)
    node.TEST = CfgNode({"EVAL_PERIOD": 100})
    keys = {"MAX_ITER": 1200, "STEPS": (900, 1100), "WARMUP_ITERS": 50, "CHECKPOINT_PERIOD": 100, "BASE_LR": 0.01}
    node.SOLVER.update({**keys, "IMS_PER_BATCH": 4, "REFERENCE_BATCH_SIZE": 16, "EPOCHS": 12.0, **solver})
    node.freeze()
    return node


@pytest.mark.parametrize(("images", "batch", "steps"), [(205, 4, 615), (50, 2, 300), (1, 16, 1), (118_287, 16, 88_716)])
def test_steps_are_epochs_times_images_over_the_batch(images, batch, steps):
    fitted, notes = fit_epochs(config(IMS_PER_BATCH=batch), lambda: images)
    assert steps == fitted.SOLVER.MAX_ITER and f"{steps:,}" in notes[0]
    ratio = steps / 1200
    assert tuple(max(1, round(step * ratio)) for step in (900, 1100)) == fitted.SOLVER.STEPS
    assert fitted.TEST.EVAL_PERIOD == fitted.SOLVER.CHECKPOINT_PERIOD == max(1, round(100 * ratio))
    again, _ = fit_epochs(fitted, lambda: images)
    assert again == fitted


def test_the_rate_follows_the_batch_and_the_length_the_data():
    scaled, notes = scale_schedule(config())
    assert pytest.approx(0.0025) == scaled.SOLVER.BASE_LR
    assert scaled.SOLVER.MAX_ITER == 1200 and "MAX_ITER" not in notes[0]


def test_what_is_given_stands():
    fitted, _ = fit_epochs(config(), lambda: 205, {"TEST.EVAL_PERIOD", "SOLVER.STEPS"})
    assert (fitted.TEST.EVAL_PERIOD, fitted.SOLVER.STEPS) == (100, (900, 1100))
    same, notes = fit_epochs(config(), lambda: 205, {"SOLVER.MAX_ITER"})
    assert same == config() and "left out" in notes[0]
    # Of a schedule in iterations, nobody counts the images of an epoch: that may take seconds.
    assert fit_epochs(config(EPOCHS=0.0), pytest.fail) == (config(EPOCHS=0.0), [])
    assert fit_epochs(config(), pytest.fail, {"SOLVER.MAX_ITER"})[0] == config()
    with pytest.raises(ConfigError, match="two lengths of one training"):
        fit_epochs(config(), lambda: 205, {"SOLVER.MAX_ITER", "SOLVER.EPOCHS"})

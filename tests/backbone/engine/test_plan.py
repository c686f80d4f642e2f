"""What stands in the plan of every training: epochs, and what is strange in the schedule."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from backbone.common.errors import DataError
from backbone.engine import plan
from backbone.engine.loading import EpochSampler


def config(iterations: int, *, batch: int = 8, warm_up: int = 0) -> SimpleNamespace:
    return SimpleNamespace(SOLVER=SimpleNamespace(MAX_ITER=iterations, IMS_PER_BATCH=batch, WARMUP_ITERS=warm_up))


@pytest.mark.parametrize(
    ("wanted", "images", "epochs"),
    [
        (config(10), 160, "= 0.5 epochs"),
        (config(20), 160, "20 iterations = 1 epoch"),
        (config(600_000, batch=256), 18, "= 8,533,333 epochs"),
    ],
)
def test_epochs_can_be_read(wanted, images, epochs):
    assert plan.length(wanted, images).endswith(epochs)


@pytest.mark.parametrize(
    ("wanted", "images", "said"),
    [
        (config(1000, warm_up=100), 800, ""),
        (config(400, warm_up=0), 8, ""),
        (config(1000, warm_up=0), 8, "100 epochs would be 100 (SOLVER.EPOCHS 100)"),
        (config(90, warm_up=1000), 800, "SOLVER.WARMUP_ITERS 1,000"),
        (config(1000, warm_up=1000), 800, "the rate never reaches SOLVER.BASE_LR"),
        (config(600_000, batch=256), 18, "each of 18 images 8,533,333 times; 100 epochs would be 8"),
        (config(0, warm_up=10), 800, ""),
    ],
)
def test_a_strange_schedule_is_noted(wanted, images, said):
    notes = plan.schedule_notes(wanted, images)
    assert len(notes) == bool(said) and said in "".join(notes)


def test_no_images_make_no_endless_sequence():
    with pytest.raises(DataError, match="holds no images"):
        EpochSampler([], seed=0)

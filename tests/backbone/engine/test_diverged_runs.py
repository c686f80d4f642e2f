"""A loss that is not finite ends the training in one line, before its weights are saved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from backbone.common.errors import RunError
from backbone.engine import checkpoint
from backbone.engine.schedule import MultiStep
from backbone.engine.state import Settings
from backbone.engine.task import Task
from backbone.engine.trainer import Trainer


class Line(Task):
    """One weight; its loss is `value` at step `at`, and 1 before."""

    def __init__(self, at: int, value: float) -> None:
        self.model = nn.Linear(1, 1)
        self.at, self.value = at, value

    def batches(self, start: int, end: int) -> Iterator[int]:
        yield from range(start, end)

    def losses(self, model: nn.Module, batch: int, iteration: int) -> dict[str, Tensor]:
        loss = model(torch.ones(1)).sum()
        return {"loss_fine": loss * 0 + 1, "loss_box": loss * 0 + (self.value if iteration >= self.at else 1.0)}


def train(task: Task, folder: Path, **settings: int) -> Trainer:
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    settings = Settings(folder=folder, device=torch.device("cpu"), max_iter=10, batch_size=1, **settings)
    trainer = Trainer(task, optimizer, MultiStep(()), settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("log_period", "iteration"), [(1, 5), (4, 8), (100, 10)])
def test_a_loss_that_is_not_finite(tmp_path, value, log_period, iteration):
    with pytest.raises(RunError) as caught:
        train(Line(4, value), tmp_path, log_period=log_period)
    assert str(caught.value).startswith(f"loss_box is not finite near iteration {iteration}; lower SOLVER.BASE_LR")
    assert checkpoint.newest(tmp_path) is None
    assert not (tmp_path / checkpoint.FINAL).exists()


def test_no_checkpoint_is_written_between_the_loss_and_the_report(tmp_path):
    with pytest.raises(RunError, match="near iteration 6"):
        train(Line(4, math.nan), tmp_path, log_period=100, checkpoint_period=2, keep=9)
    assert [iteration for iteration, _ in checkpoint.numbered(tmp_path)] == [2, 4]


def test_proposals_that_are_not_finite(tmp_path):
    """detectron2 raises an error of its own before there is a loss."""

    class Diverges(Line):
        def losses(self, model: nn.Module, batch: int, iteration: int) -> dict[str, Tensor]:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")

    with pytest.raises(RunError, match="a predicted box or score is not finite near iteration 0; lower SOLVER.BASE_LR"):
        train(Diverges(0, 1.0), tmp_path)


def test_finite_losses_pass(tmp_path):
    assert train(Line(99, math.nan), tmp_path).state.iteration == 10
    assert (tmp_path / checkpoint.FINAL).exists()

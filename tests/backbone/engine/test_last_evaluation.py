"""A task is told which evaluation is the last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from backbone.engine.schedule import MultiStep
from backbone.engine.state import Settings
from backbone.engine.task import Task
from backbone.engine.trainer import Trainer


class Counted(Task):
    """One weight, and what its evaluations were told."""

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1)
        self.told: list[bool] = []

    def batches(self, start: int, end: int) -> Iterator[int]:
        yield from range(start, end)

    def losses(self, model: nn.Module, batch: int, iteration: int) -> dict[str, Tensor]:
        return {"loss": model(torch.ones(1)).sum()}

    def evaluate(self, *, final: bool = True) -> dict[str, dict[str, float]]:
        self.told.append(final)
        return {}


@pytest.mark.parametrize(("period", "told"), [(0, [True]), (2, [False, False, True]), (3, [False, True])])
def test_the_last_evaluation_is_named(tmp_path, period, told):
    task = Counted()
    settings = Settings(tmp_path, torch.device("cpu"), max_iter=6, batch_size=1, eval_period=period)
    Trainer(task, torch.optim.SGD(task.model.parameters(), lr=0.1), MultiStep(()), settings).train()
    assert task.told == told

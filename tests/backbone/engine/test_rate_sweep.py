"""A sweep over learning rates: where it stops, what it suggests, and that it keeps nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbone.classification.config import default_config
from backbone.common.errors import RunError
from backbone.engine.rate_sweep import PAGE, TABLE, Sweep, find_rate, losses_of_rates, suggestion
from backbone.engine.task import Task

CURVATURES = torch.tensor([0.5, 2.0, 8.0])


class Bowl(Task):
    """A quadratic bowl with noise: gradient descent diverges at rates above 2 / 8."""

    def __init__(self, start: float = 3.0, *, worst: float = math.inf) -> None:
        self.model = nn.Linear(3, 1, bias=False)
        nn.init.constant_(self.model.weight, start)
        self.worst = worst

    def batches(self, start: int, end: int) -> Iterator[Tensor]:
        for _ in range(start, end):
            yield 0.02 * torch.randn(3)

    def losses(self, model: nn.Module, batch: Tensor, iteration: int) -> dict[str, Tensor]:
        loss = (CURVATURES * (model.weight[0] + batch) ** 2 / 2).sum()
        return {"loss": loss if loss < self.worst else loss * float("nan")}


def config(folder) -> object:
    made = default_config()
    made.MODEL.DEVICE, made.OUTPUT_DIR, made.SOLVER.BASE_LR = "cpu", str(folder), 0.05
    return made


def sweep(folder, task: Bowl, over: Sweep) -> list[tuple[float, float]]:
    torch.manual_seed(0)
    return losses_of_rates(task, torch.optim.SGD(task.model.parameters(), lr=0.05), config(folder), over)


@pytest.mark.parametrize("worst", [math.inf, 500.0])
def test_rates_grow_by_a_factor_until_the_loss_diverges(tmp_path, worst):
    over = Sweep(1e-4, 10.0, 120)
    points = sweep(tmp_path, Bowl(worst=worst), over)
    rates = np.array([rate for rate, _ in points])
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 10.0, 120)[: len(points)])
    # The steps are those of gradient descent, and it goes on no further than it must.
    weight, found = torch.full((3,), 3.0), []
    torch.manual_seed(0)
    for rate in rates:
        noise = 0.02 * torch.randn(3)
        found.append((CURVATURES * (weight + noise) ** 2 / 2).sum().item())
        weight = weight - rate * CURVATURES * (weight + noise)
    assert [loss for _, loss in points] == pytest.approx(found, rel=1e-4)
    assert 0.25 < rates[-1] < 2 and all(math.isfinite(loss) for _, loss in points)
    # At the suggested rate, training is stable and gets somewhere.
    rate, weight = suggestion(points), torch.full((3,), 3.0)
    for _ in range(300):
        weight = weight - rate * CURVATURES * weight
    assert rate < 2 / 8 and (CURVATURES * weight**2 / 2).sum() < 0.02 * found[0]


def test_with_trained_weights_it_is_a_tenth_of_where_the_loss_rises():
    rates = np.geomspace(1e-5, 1.0, 100)
    losses = np.where(rates < 0.1, 1.0, 1.0 + 30 * (rates - 0.1)) + 0.01 * np.sin(np.arange(100))
    assert 0.05 / 10 < suggestion(list(zip(rates, losses))) < 0.15 / 10


def test_the_page_the_numbers_and_nothing_else_and_twice_the_same(tmp_path, caplog):
    for name in "ab":
        task = Bowl()
        optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05)
        find_rate(task, optimizer, config(tmp_path / name), Sweep(1e-4, 10.0, 60), tmp_path / name)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [PAGE, TABLE]
    assert (tmp_path / "a" / TABLE).read_bytes() == (tmp_path / "b" / TABLE).read_bytes()
    found = json.loads((tmp_path / "a" / TABLE).read_text())
    text = (tmp_path / "a" / PAGE).read_text()
    assert f"SOLVER.BASE_LR {found['suggestion']:g}," in text and "http" not in re.sub(r"http://www\.w3\.org", "", text)
    with pytest.raises(RunError, match="not finite from the lowest rate on"):
        task = Bowl(worst=1.0)
        optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05)
        find_rate(task, optimizer, config(tmp_path / "c"), Sweep(1e-6, 1.0, 100), tmp_path / "c")
    assert not (tmp_path / "c").exists()

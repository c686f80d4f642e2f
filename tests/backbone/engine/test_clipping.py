"""Gradient clipping against torch's own functions: plain, with a batch in parts, and with a loss scale."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from backbone.classification import config as classification
from backbone.common.errors import ConfigError
from backbone.engine import distributed
from backbone.engine.clipping import Clipping
from backbone.engine.schedule import MultiStep
from backbone.engine.solver import make_settings
from backbone.engine.state import Settings
from backbone.engine.task import Task
from backbone.engine.trainer import Trainer
from backbone.localization import config as localization
from backbone.segmentation import config as segmentation

BATCH = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
CLIPS = [
    Clipping("value", 0.03),
    Clipping("norm", 0.1),
    Clipping("norm", 0.05, math.inf),
    Clipping("full_model", 0.2),
    Clipping("full_model", 0.3, 1.0),
    Clipping("full_model", 1e6),
]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) ** 2).mean() * 3


class Squares(Task):
    def __init__(self) -> None:
        self.model = network()

    def batches(self, start: int, end: int):
        yield from ()

    def losses(self, model: nn.Module, batch: Tensor, iteration: int) -> dict[str, Tensor]:
        return {"loss": loss_of(model, batch)}

    def step_metrics(self) -> dict[str, Tensor]:
        return {"square": torch.tensor(4.0)}


def train_a_step(clip: Clipping | None, *, scaled: bool = False, **settings: object) -> tuple[Trainer, dict]:
    task = Squares()
    length = settings.pop("max_iter", 1)
    settings = Settings(Path(), torch.device("cpu"), length, 4, clip=clip, loggers=(), **settings)
    trainer = Trainer(task, torch.optim.SGD(task.model.parameters(), lr=1.0), MultiStep(()), settings)
    if scaled:
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return trainer, trainer.step(BATCH)[1]


def step(clip: Clipping | None, **changes: object) -> list[Tensor]:
    return list(train_a_step(clip, **changes)[0].task.model.parameters())


def expected(clip: Clipping) -> list[Tensor]:
    model = network()
    loss_of(model, BATCH).backward()
    if clip.kind == "value":
        nn.utils.clip_grad_value_(model.parameters(), clip.limit)
    elif clip.kind == "full_model":
        nn.utils.clip_grad_norm_(model.parameters(), clip.limit, clip.norm)
    else:
        for parameter in model.parameters():
            nn.utils.clip_grad_norm_([parameter], clip.limit, clip.norm)
    return [parameter.detach() - parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_a_step_is_that_of_torchs_functions(clip):
    for changes in ({}, {"accumulate": 2}, {"scaled": True}, {"scaled": True, "accumulate": 4}):
        torch.testing.assert_close(step(clip, **changes), expected(clip), rtol=1e-5, atol=1e-6)
    differs = any(not torch.allclose(a, b) for a, b in zip(expected(clip), step(None)))
    assert differs == (clip.limit < 1e5)


@pytest.mark.parametrize("clip", [None, Clipping("full_model", 0.2), Clipping("value", 0.03)])
def test_the_norm_of_all_gradients_is_that_before_clipping_and_of_no_scale(clip, monkeypatch):
    model = network()
    loss_of(model, BATCH).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf).item()
    for changes in ({}, {"accumulate": 2}, {"scaled": True}):
        assert train_a_step(clip, **changes)[1]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    # A schedule that watches the run takes the mean of its metrics, tensors, over the processes.
    monkeypatch.setattr(distributed, "mean", Tensor.clone)
    monkeypatch.setattr(MultiStep, "watching", True, raising=False)
    seen: list[dict] = []
    monkeypatch.setattr(MultiStep, "observe", lambda _, metrics: seen.append(metrics), raising=False)
    assert train_a_step(clip)[1]["gradient_norm"] and seen == [{"square": 4.0}]
    # Only where a line of the log follows.
    assert "gradient_norm" not in train_a_step(clip, log_period=20, max_iter=9)[1]


def test_gradients_that_overflow_the_scale_leave_the_step_out(monkeypatch):
    monkeypatch.setitem(globals(), "BATCH", torch.full((4, 6), 1e30))
    assert all(
        torch.equal(*pair) for pair in zip(step(Clipping("full_model", 1.0), scaled=True), network().parameters())
    )


@pytest.mark.parametrize("task", [classification, segmentation, localization])
def test_every_task_has_the_keys_of_detectron2(task):
    config = task.default_config()
    assert make_settings(config, best="").clip is None
    config.SOLVER.CLIP_GRADIENTS.update(ENABLED=True, CLIP_TYPE="full_model", CLIP_VALUE=0.5, NORM_TYPE=1.0)
    task.check_values(config, "a.yaml")
    assert make_settings(config, best="").clip == Clipping("full_model", 0.5, 1.0)
    for key, value, said in (
        ("CLIP_TYPE", "global", "CLIP_TYPE is 'global'; one of value, norm, full_model"),
        ("CLIP_VALUE", 0.0, "CLIP_VALUE must be above 0, not 0.0"),
        ("NORM_TYPE", float("nan"), "NORM_TYPE must be above 0"),
    ):
        wrong = config.clone()
        wrong.SOLVER.CLIP_GRADIENTS[key] = value
        with pytest.raises(ConfigError, match=f"SOLVER.CLIP_GRADIENTS.{said}"):
            task.check_values(wrong, "a.yaml")

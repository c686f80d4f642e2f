"""How a run goes, and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .averages import REMEDIES
from .clipping import Clipping
from .record import LOSS


@dataclass(frozen=True)
class Settings:
    """How a run goes.

    Attributes:
        batch_size: images a step over all processes.
        amp: None for float32, else "bfloat16" or "float16".
        accumulate: parts of a process's batch whose gradients are summed before a step.
        clip: what limits the sum of these gradients; None for nothing.
        best: "kind/metric" of the evaluation by which the best weights are chosen; higher is better, but of a loss.
        config: the whole config as YAML text; it goes into every checkpoint.
        remedies: what may keep a loss finite, for the message where one is not.
        loggers: names of `loggers.RunRecord`.
    """

    folder: Path
    device: torch.device
    max_iter: int
    batch_size: int
    log_period: int = 20
    checkpoint_period: int = 0
    eval_period: int = 0
    keep: int = 2
    accumulate: int = 1
    clip: Clipping | None = None
    amp: str | None = None
    best: str = "bbox/AP"
    config: str = ""
    remedies: str = REMEDIES
    loggers: tuple[str, ...] = ("tensorboard",)


@dataclass
class State:
    """Where a run stands.

    Attributes:
        best: the best value so far of `Settings.best`; of a loss, its negative: higher is better.
        stopped: why a hook has ended the run before `max_iter`; "" where none has.
    """

    iteration: int = 0
    best: float = -math.inf
    best_iteration: int = -1
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluation_due: bool = False
    finished: bool = False
    stopped: str = ""


def score_of(figure: str, value: float) -> float:
    """Return a value of "kind/metric" as `State.best` has it, and the other way round."""
    return -value if figure.endswith(LOSS) else value


def best_figure(figure: str, score: float) -> dict[str, float]:
    """Return {metric: its value} of "kind/metric" and a score of `State.best`."""
    return {figure.rpartition("/")[2]: score_of(figure, score)}

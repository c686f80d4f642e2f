"""Losses and metrics of the steps between two reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..common.errors import RunError
from . import distributed

# Keys that every task has.
REMEDIES = "lower SOLVER.BASE_LR or lengthen SOLVER.WARMUP_ITERS"


class Averages:
    """Means of losses and metrics since the last report.

    They stay on the device until then, so that no step waits for it. Losses come in every step, in every process; of
    the metrics, each has the mean of the steps in which it came.

    Args:
        remedies: what may keep a loss finite, for the message where one is not.

    Attributes:
        last: the means of the last report.
    """

    def __init__(self, remedies: str = REMEDIES) -> None:
        self.remedies = remedies
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        # Sum and number of each metric.
        self.metrics: dict[str, tuple[Tensor | float, int]] = {}
        self.names: list[str] = []
        self.last: dict[str, float] = {}

    @property
    def losses(self) -> dict[str, float]:
        """The losses of `last`, without the metrics."""
        return {name: self.last[name] for name in self.names if name in self.last}

    def add(self, losses: dict[str, Tensor], step_metrics: dict[str, Tensor | float]) -> None:
        self.names = list(losses)
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.float()
        for name, value in step_metrics.items():
            total, number = self.metrics.get(name, (0.0, 0))
            self.metrics[name] = (total + value, number + 1)
        self.count += 1
        if not self.last:
            self.last = {name: float(value) for name, value in {**losses, **step_metrics}.items()}

    def take(self, iteration: int) -> None:
        """Put the means over steps and processes into `last`, and start anew."""
        self.check(iteration)
        names = list(self.sums)
        if self.count and names:
            means = distributed.mean(torch.stack([self.sums[name] for name in names]) / self.count)
            self.last = {**dict(zip(names, means.tolist())), **_means(distributed.gather(_read(self.metrics)))}
        self.sums, self.count, self.metrics = {}, 0, {}

    def check(self, iteration: int) -> None:
        """Raise RunError if a loss since the last report was not finite."""
        wrong = [name for name in self.names if name in self.sums and not math.isfinite(float(self.sums[name]))]
        if distributed.anyone(bool(wrong)):
            raise diverged(", ".join(wrong) or "a loss in another process", iteration, self.remedies)


def _read(metrics: dict[str, tuple[Tensor | float, int]]) -> dict[str, tuple[float, int]]:
    """Return metrics as plain numbers; those on the device are read together."""
    there = {name: total.double() for name, (total, _) in metrics.items() if isinstance(total, Tensor)}
    read = dict(zip(there, torch.stack(list(there.values())).tolist())) if there else {}
    return {name: (read.get(name, total), number) for name, (total, number) in metrics.items()}


def _means(processes: list[dict[str, tuple[float, int]]]) -> dict[str, float]:
    """Return the means of what any of the processes has summed up."""
    found: dict[str, list[tuple[float, int]]] = {}
    for sums in processes:
        for name, pair in sums.items():
            found.setdefault(name, []).append(pair)
    return {name: sum(s for s, _ in pairs) / sum(n for _, n in pairs) for name, pairs in found.items()}


def diverged(what: str, iteration: int, remedies: str = REMEDIES) -> RunError:
    return RunError(f"{what} is not finite near iteration {iteration}; {remedies}")


def flat_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the numbers of an evaluation as {"kind/metric": value}; of a class, its first figure, as "kind/AP-name".

    A class without ground truth (-1) has none.
    """
    found = {}
    for kind, figures in results.items():
        found |= {f"{kind}/{name}": value for name, value in figures.items() if isinstance(value, (int, float))}
        for name, of in (figures.get("per_class") or {}).items():
            metric, value = next(iter(of.items()))
            # Other figures of the same classes, as VOC's two metrics, stand in results.json alone.
            if metric in figures and value >= 0:
                found[f"{kind}/{metric}-{name}"] = float(value)
    return found

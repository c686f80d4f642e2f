"""Learning rate by iteration.

MultiStep, Cosine and Poly are functions of the iteration, so a resumed run needs no state of them. Plateau and
WarmUpByError look at the run; what they remember goes into its checkpoints.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WarmUp:
    """Ramp over the first `iterations`: from `factor` of the rate, linear up to it or constant until then."""

    iterations: int = 0
    factor: float = 1e-3
    method: str = "linear"

    def multiplier(self, iteration: int) -> float:
        """Return the factor of the base rate at `iteration`, counted from 0. The other schedules have the same."""
        if iteration >= self.iterations:
            return 1.0
        if self.method == "constant":
            return self.factor
        return self.factor + (1 - self.factor) * iteration / self.iterations


@dataclass(frozen=True)
class MultiStep:
    """Times `gamma` at each of `steps`."""

    steps: Sequence[int]
    gamma: float = 0.1
    warm_up: WarmUp = WarmUp()

    def multiplier(self, iteration: int) -> float:
        return self.gamma ** bisect_right(self.steps, iteration) * self.warm_up.multiplier(iteration)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to `end` at `max_iter`."""

    max_iter: int
    end: float = 0.0
    warm_up: WarmUp = WarmUp()

    def multiplier(self, iteration: int) -> float:
        done = min(1.0, iteration / max(1, self.max_iter))
        return (self.end + (1 - self.end) * (1 + math.cos(math.pi * done)) / 2) * self.warm_up.multiplier(iteration)


@dataclass(frozen=True)
class Poly:
    """(1 - iteration / max_iter) to the `power` (Chen et al., "DeepLab", arXiv 1606.00915, Sec. 4.1)."""

    max_iter: int
    power: float = 0.9
    warm_up: WarmUp = WarmUp()

    def multiplier(self, iteration: int) -> float:
        left = max(0.0, 1 - iteration / max(1, self.max_iter))
        return left**self.power * self.warm_up.multiplier(iteration)


@dataclass
class Plateau:
    """Times `gamma` when the error has not improved for `patience` evaluations, and the rate has had `least` of them.

    Without `least`, the flat curve after a drop, and noise that makes one evaluation lucky, end a rate in a few epochs.

    Attributes:
        metric: "kind/metric" of the results; lower is better.
        least: evaluations that every rate lasts at least.
        drops: how often at most.
        threshold: least improvement that counts.
    """

    metric: str
    gamma: float = 0.1
    patience: int = 3
    least: int = 0
    drops: int = 3
    threshold: float = 1e-3
    warm_up: WarmUp = WarmUp()
    state: dict[str, Any] = field(default_factory=lambda: {"best": math.inf, "waited": 0, "dropped": 0, "since": 0})

    def multiplier(self, iteration: int) -> float:
        return self.gamma ** self.state["dropped"] * self.warm_up.multiplier(iteration)

    def evaluated(self, results: dict[str, dict[str, float]]) -> None:
        """Look at the results of an evaluation."""
        kind, name = self.metric.split("/")
        value = results.get(kind, {}).get(name)
        if value is None:
            return
        state = self.state
        state["since"] += 1
        if value < state["best"] - self.threshold:
            state.update(best=float(value), waited=0)
            return
        state["waited"] += 1
        if state["waited"] >= self.patience and state["since"] >= self.least and state["dropped"] < self.drops:
            state.update(waited=0, since=0, dropped=state["dropped"] + 1)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state.update(state)


@dataclass
class WarmUpByError:
    """`factor` of another schedule's rate until the training error has fallen below `error` (Sec. 4.2, ResNet-110).

    Attributes:
        measure: name of the training error among the task's step metrics; its running mean over some 20 steps decides.
    """

    schedule: Any
    factor: float = 0.1
    error: float = 0.8
    measure: str = "train_error"
    state: dict[str, Any] = field(default_factory=lambda: {"mean": 1.0, "done": False})

    @property
    def watching(self) -> bool:
        return not self.state["done"]

    def multiplier(self, iteration: int) -> float:
        return self.schedule.multiplier(iteration) * (self.factor if self.watching else 1.0)

    def observe(self, step_metrics: dict[str, float]) -> None:
        """Look at the metrics of a step."""
        if self.measure in step_metrics:
            mean = 0.95 * self.state["mean"] + 0.05 * step_metrics[self.measure]
            self.state.update(mean=mean, done=mean < self.error)

    def evaluated(self, results: dict[str, dict[str, float]]) -> None:
        if hasattr(self.schedule, "evaluated"):
            self.schedule.evaluated(results)

    def state_dict(self) -> dict[str, Any]:
        return {**self.state, "schedule": getattr(self.schedule, "state_dict", dict)()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state.update(mean=state["mean"], done=state["done"])
        if state.get("schedule"):
            self.schedule.load_state_dict(state["schedule"])

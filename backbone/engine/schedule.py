"""Learning rate by iteration. A schedule is a function of the iteration, so a resumed run needs no state of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WarmUp:
    """Ramp over the first `iterations`: from `factor` of the rate, linear up to it or constant until then."""

    iterations: int = 0
    factor: float = 1e-3
    method: str = "linear"

    def multiplier(self, iteration: int) -> float:
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

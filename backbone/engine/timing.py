"""Timing several ways of doing one thing so that the machine's drift hits all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

Name = TypeVar("Name")
Run = TypeVar("Run", bound=Callable[[], object])


@dataclass(frozen=True)
class Timing:
    """Seconds of each counted round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rounds(self) -> int:
        return len(self.seconds)

    @property
    def spread(self) -> float:
        """Slowest over fastest round."""
        return max(self.seconds) / min(self.seconds)


def alternate(
    ways: Mapping[Name, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    pause: float = 0.0,
    within: float | None = None,
) -> dict[Name, Timing]:
    """Run every way once a round, in turn, and return their timings.

    A GPU's queue is emptied before each clock is read. Garbage is collected between the ways, not within them.

    Args:
        pause: seconds of rest before each; threads of one runtime spin for a while, on the cores that the next needs.
        within: seconds after which no other round begins, once one has been counted.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in ways}
    started = time.perf_counter()
    for turn in range(warm_up + rounds):
        if within is not None and turn > warm_up and time.perf_counter() - started > within:
            break
        for name, run in ways.items():
            gc.collect()
            gc.disable()
            _wait()
            time.sleep(pause)
            began = time.perf_counter()
            run()
            _wait()
            elapsed = time.perf_counter() - began
            gc.enable()
            if turn >= warm_up:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def only_those_that_run(
    ways: Mapping[Name, Run], keep: Callable[[Name], bool]
) -> tuple[dict[Name, Run], dict[Name, str]]:
    """Run every way once, and leave out those that fail, such as a compilation that this machine cannot do.

    Args:
        keep: whether a way's failure is raised instead, as of what the others are compared with.

    Returns:
        The ways that ran, and of the others the error in a line.
    """
    running, failed = {}, {}
    for name, run in ways.items():
        try:
            run()
        except RuntimeError as error:
            if keep(name):
                raise
            failed[name] = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        else:
            running[name] = run
    return running, failed


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

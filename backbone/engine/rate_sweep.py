"""A learning rate to begin with: the loss is watched while the rate grows from step to step (Smith, 2017)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.errors import RunError
from ..common.files import write_json, write_text
from ..common.pages.chart import Axis, Series, draw, fit_scale
from ..common.pages.chart_parts import STYLE
from ..common.pages.document import document
from . import checkpoint, distributed
from .record import LOGGER
from .solver import make_settings, quicken
from .task import Task
from .trainer import Trainer

log = logging.getLogger(LOGGER)
PAGE, TABLE = "find_lr.html", "find_lr.json"
# A loss that many times the lowest one has diverged.
DIVERGED = 4.0
# Of the loss that the divergence is judged by: the share of the past.
MEMORY = 0.8
# Of the first losses: from here on a loss is no worse, in the smoothed course.
CAPPED = 2.0
# Shares of the first loss: so much above the lowest, the loss has risen; and so much it falls where training begins.
RISEN, FALLEN = 0.2, 0.05


@dataclass(frozen=True)
class Sweep:
    """Rates from `low` to `high`, growing by the same factor in each of `steps` steps."""

    low: float
    high: float
    steps: int

    def rate(self, step: int) -> float:
        return self.low * (self.high / self.low) ** (step / (self.steps - 1))


class _Growing:
    """The sweep as a schedule: a multiple of the base rate."""

    def __init__(self, sweep: Sweep, base: float) -> None:
        self.sweep, self.base = sweep, base

    def multiplier(self, iteration: int) -> float:
        return self.sweep.rate(iteration) / self.base


def find_rate(task: Task, optimizer: torch.optim.Optimizer, config: Any, sweep: Sweep, folder: Path) -> None:
    """Sweep, write the page and the numbers into `folder`, and print the suggested rate. A collective call.

    The network is of no use afterwards; nothing of it is written.

    Raises:
        RunError: the loss was not finite from the start.
    """
    checkpoint.seed_everything(config.SEED + distributed.rank())
    points = losses_of_rates(task, optimizer, config, sweep)
    if len(points) < 3:
        raise RunError(f"the loss is not finite from the lowest rate on; sweep from below {sweep.low:g} (--from)")
    if not distributed.is_main():
        return
    rate = suggestion(points)
    write_json(folder / TABLE, {"suggestion": rate, "points": points})
    write_text(folder / PAGE, page(points, rate, folder.name))
    last = points[-1][0]
    ended = (
        "" if len(points) == sweep.steps else f", where the loss diverged after {len(points)} of {sweep.steps} steps"
    )
    log.info("swept        %.3g to %.3g%s", points[0][0], last, ended)
    log.info("page         %s", folder / PAGE)
    batch = config.SOLVER.IMS_PER_BATCH
    log.info("suggested    SOLVER.BASE_LR %g, on the command line; it is for SOLVER.IMS_PER_BATCH %d", rate, batch)


def losses_of_rates(
    task: Task, optimizer: torch.optim.Optimizer, config: Any, sweep: Sweep
) -> list[tuple[float, float]]:
    """Train with growing rates up to the end of the sweep or the divergence; return (BASE_LR, loss of the step)."""
    quicken(task, optimizer, config)
    trainer = Trainer(task, optimizer, _Growing(sweep, config.SOLVER.BASE_LR), make_settings(config, best=""))
    task.model.train()
    points: list[tuple[float, float]] = []
    mean, lowest = 0.0, math.inf
    for step, batch in enumerate(task.batches(0, sweep.steps)):
        trainer.set_rates()
        try:
            losses, _ = trainer.step(batch)
        except RunError:
            # Region proposals that are not finite.
            break
        loss = float(distributed.mean(sum(losses.values()).float()))
        if not math.isfinite(loss):
            break
        trainer.state.iteration += 1
        points.append((sweep.rate(step), loss))
        mean = MEMORY * mean + (1 - MEMORY) * loss
        # Without the weight of the zero that the mean began with.
        smoothed = mean / (1 - MEMORY ** len(points))
        lowest = min(lowest, smoothed)
        if smoothed > DIVERGED * lowest:
            break
    return points


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Return means over the neighbours on both sides, which lag behind no change; what diverges counts as CAPPED times
    the first losses.
    """
    values, side = np.asarray(losses, dtype=np.float64), reach(len(losses))
    values = np.minimum(values, CAPPED * abs(values[: side + 1].mean()))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - side, 0), np.minimum(places + side + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def reach(steps: int) -> int:
    """Return how many neighbours on each side a mean takes in."""
    return max(1, steps // 12)


def suggestion(points: Sequence[tuple[float, float]]) -> float:
    """Return the rate, to two digits, at which the smoothed loss falls fastest, before it rises for the first time.

    Where it falls nowhere, as with weights that are trained already, it is a tenth of the rate at that rise.
    """
    losses, side = smooth([loss for _, loss in points]), reach(len(points))
    first = abs(losses[0])
    risen = np.flatnonzero(losses > np.minimum.accumulate(losses) + RISEN * first)
    end = int(risen[0]) if len(risen) else len(losses) - 1
    places = np.arange(end + 1)
    falls = losses[np.maximum(places - side, 0)] - losses[np.minimum(places + side, end)]
    best = int(falls.argmax())
    rate = points[best][0] if falls[best] > FALLEN * first else points[end][0] / 10
    return float(f"{rate:.1e}")


def page(points: Sequence[tuple[float, float]], rate: float, name: str) -> str:
    """Return the page: the loss of each step and its smoothed course over the rate, the suggestion marked."""
    low = math.log10(points[0][0])
    places = [math.log10(one) - low for one, _ in points]
    losses = [loss for _, loss in points]
    series = [
        Series("smoothed", 0, False, list(zip(places, smooth(losses).tolist()))),
        Series("loss of a step", 1, True, list(zip(places, losses))),
    ]
    # What diverges may leave the chart.
    scale = fit_scale(series[:1], 0, math.inf, math.inf)
    powers = range(math.ceil(low), math.floor(low + scale.iterations) + 1)
    across = Axis("SOLVER.BASE_LR", [(power - low, f"{10.0**power:g}") for power in powers])
    marks = [math.log10(rate) - low]
    svg = draw("loss by rate", series, scale, axis="", number=0, empty="", drops=marks, across=across)
    legend = "".join(f'<li><span class="swatch c{line.color}"></span>{line.name}</li>' for line in series)
    why = "where the loss falls fastest, or, if it falls nowhere, a tenth of the rate at which it rises"
    body = (
        f"<p>Suggested: SOLVER.BASE_LR {rate:g}, {why}.</p>\n"
        f'<div class="panels"><figure class="chart">{svg}<ul class="legend">{legend}</ul></figure></div>'
    )
    return document(f"Learning rates of {name}", body, style=STYLE, script="")

"""Schedules made shorter in proportion, and how much of a config's schedule a run has had."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from backbone.engine.config import get
from backbone.engine.scale import ITERATION_KEYS

# A shortened run evaluates at most so often: the test sets do not shrink with it. A rate that drops on plateau needs
# more evaluations, for it waits for some of them.
EVALUATIONS, EVALUATIONS_ON_PLATEAU = 10, 30
LOG_LINES = 100
PLATEAU_KEY = "SOLVER.PLATEAU_MIN_EVALUATIONS"


def shorten(config: Any, share: float, given: Collection[str]) -> list[object]:
    """Return KEY, VALUE, ... that make the schedule `share` as long.

    Args:
        config: as it would run.
        given: keys that the user set; they are left as they are.
    """
    if share == 1:
        return []
    new = {key: _times(get(config, key), share) for key in ITERATION_KEYS if get(config, key) and key not in given}
    solver = config.SOLVER
    total = new.get("SOLVER.MAX_ITER", solver.MAX_ITER)
    most = EVALUATIONS_ON_PLATEAU if solver.LR_SCHEDULER_NAME == "Plateau" else EVALUATIONS
    for key in ("TEST.EVAL_PERIOD", "SOLVER.CHECKPOINT_PERIOD"):
        if key in new:
            new[key] = max(new[key], -(-total // most))
    if solver.LR_SCHEDULER_NAME == "Plateau" and solver.PLATEAU_MIN_EVALUATIONS and PLATEAU_KEY not in given:
        evaluations = total / (new.get("TEST.EVAL_PERIOD") or config.TEST.EVAL_PERIOD or total)
        before = solver.MAX_ITER / (config.TEST.EVAL_PERIOD or solver.MAX_ITER)
        new[PLATEAU_KEY] = _times(solver.PLATEAU_MIN_EVALUATIONS, evaluations / before)
    if "SOLVER.LOG_PERIOD" not in given:
        new["SOLVER.LOG_PERIOD"] = min(config.SOLVER.LOG_PERIOD, max(1, total // LOG_LINES))
    return [part for pair in new.items() for part in pair]


def _times(value: int | tuple[int, ...], share: float) -> int | tuple[int, ...]:
    if isinstance(value, (tuple, list)):
        return tuple(_times(item, share) for item in value)
    return max(1, round(value * share))


def share_of_schedule(config: dict[str, Any], reference: Any) -> float:
    """Return the training images that a run's config (plain mapping) stands for, over those of the reference config."""
    images = config["SOLVER"]["MAX_ITER"] * config["SOLVER"]["IMS_PER_BATCH"]
    wanted = reference.SOLVER.MAX_ITER * reference.SOLVER.IMS_PER_BATCH
    return images / wanted if wanted else 0.0

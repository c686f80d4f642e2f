"""The schedule follows the real batch size."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .config import get, put

# Counted in iterations: divided by the ratio of the batches. The learning rate is multiplied by it.
ITERATION_KEYS = (
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)
RATE_KEY = "SOLVER.BASE_LR"
# Where a larger batch raises the rate of a schedule without warm-up, it gets one, from the reference rate to the new
# one (Goyal et al., Sec. 2.2): so many iterations, but no more than that share of the schedule.
WARMUP_ITERS, WARMUP_SHARE = 500, 0.05
WARMUP_KEYS = {"SOLVER.WARMUP_ITERS", "SOLVER.WARMUP_FACTOR", RATE_KEY}


def scale_schedule(config: Any, given: Collection[str] = ()) -> tuple[Any, list[str]]:
    """Fit learning rate and schedule to IMS_PER_BATCH by the linear rule (Goyal et al., 2017).

    Args:
        given: keys that the user gave on the command line; their values are taken as they stand.

    Returns:
        A frozen config that scaling again leaves alone, and what was changed, a line each.
    """
    solver = config.SOLVER
    ratio = solver.IMS_PER_BATCH / solver.REFERENCE_BATCH_SIZE
    if not solver.AUTO_SCALE or ratio == 1:
        return config, []
    scaled = config.clone()
    scaled.defrost()
    notes = []
    # In epochs, a schedule has its length from the data (`epochs.fit_epochs`).
    counts = () if solver.EPOCHS else ITERATION_KEYS
    for key in (RATE_KEY, *counts):
        value = get(config, key)
        if key in given or not value:
            continue
        new = value * ratio if key == RATE_KEY else _divide(value, ratio)
        put(scaled, key, new)
        notes.append(f"{key} {_show(value)} -> {_show(new)}")
    warm_up = min(WARMUP_ITERS, int(WARMUP_SHARE * scaled.SOLVER.MAX_ITER)) if ratio > 1 else 0
    if warm_up and not (solver.WARMUP_ITERS or solver.get("WARMUP_ERROR")) and WARMUP_KEYS.isdisjoint(given):
        scaled.SOLVER.WARMUP_ITERS, scaled.SOLVER.WARMUP_FACTOR = warm_up, 1 / ratio
        notes.append(f"SOLVER.WARMUP_ITERS 0 -> {warm_up}, from the rate of the smaller batch")
    # What the numbers are for, from here on: scaling a saved config again must change nothing.
    scaled.SOLVER.REFERENCE_BATCH_SIZE = solver.IMS_PER_BATCH
    scaled.freeze()
    if notes:
        head = f"batch {solver.IMS_PER_BATCH} instead of {solver.REFERENCE_BATCH_SIZE}, schedule scaled (linear rule): "
        notes = [head + ", ".join(notes)]
    kept = [key for key in (RATE_KEY, *ITERATION_KEYS) if key in given]
    if kept:
        notes.append(
            f"taken as given on the command line: {', '.join(f'{key} {_show(get(config, key))}' for key in kept)}"
        )
    return scaled, notes


def _divide(value: int | tuple[int, ...], ratio: float) -> int | tuple[int, ...]:
    if isinstance(value, tuple):
        return tuple(_divide(item, ratio) for item in value)
    return max(1, round(value / ratio))


def _show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

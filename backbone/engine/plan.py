"""What every task says alike on the page that tells what a run is about to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..common.environment import device_name
from ..common.text import count

# More passes over the training set than any usual schedule makes: the schedule was chosen for another set.
MANY_EPOCHS = 1000


def layout(rows: Iterable[tuple[str, str]]) -> str:
    """Return the page: a line for each (name, text)."""
    return "\n".join(["Plan", *(f"  {name:<10} {text}" for name, text in rows)])


def device(config: Any, processes: int) -> str:
    """Return the device's name, and how many of it."""
    name = device_name(torch.device(config.MODEL.DEVICE))
    return name if processes == 1 else f"{processes} x {name}"


def precision(config: Any) -> str:
    """Return number type and memory layout."""
    amp = config.SOLVER.AMP
    text = f"{amp.DTYPE} where it is safe, else float32" if amp.ENABLED else "float32"
    return f"{text}, channels_last" if config.MODEL.CHANNELS_LAST else text


def batch(config: Any, processes: int) -> str:
    """Return the images of a step, and of each process."""
    total = config.SOLVER.IMS_PER_BATCH
    return f"{count(total, 'image')} a step, {total // processes} in each of {count(processes, 'process', 'processes')}"


def length(config: Any, images: int) -> str:
    """Return iterations, and epochs of so many images."""
    solver = config.SOLVER
    epochs = _epochs(config, images)
    shown = f"{epochs:,.0f}" if epochs >= 1000 else f"{epochs:.4g}"
    return f"{count(solver.MAX_ITER, 'iteration')} = {shown} epochs"


def schedule_notes(config: Any, images: int) -> list[str]:
    """Return what is strange in the schedule of a training on so many images, a line each."""
    solver = config.SOLVER
    notes = []
    if solver.WARMUP_ITERS >= solver.MAX_ITER > 0 and solver.WARMUP_ITERS:
        notes.append(
            f"the warm-up (SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS:,}) is as long as the schedule or longer "
            f"(SOLVER.MAX_ITER {solver.MAX_ITER:,}): the rate never reaches SOLVER.BASE_LR"
        )
    epochs = _epochs(config, images)
    if epochs > MANY_EPOCHS:
        shorter = -(-100 * images // solver.IMS_PER_BATCH)
        notes.append(
            f"SOLVER.MAX_ITER {solver.MAX_ITER:,} shows each of {count(images, 'image')} {epochs:,.0f} times; "
            f"100 epochs would be {shorter:,}"
        )
    return notes


def _epochs(config: Any, images: int) -> float:
    return config.SOLVER.MAX_ITER * config.SOLVER.IMS_PER_BATCH / max(1, images)


def course(solver: Any) -> str:
    """Return how the learning rate goes on from BASE_LR."""
    steps = ", ".join(f"{step:,}" for step in solver.STEPS if step < solver.MAX_ITER)
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupPolyLR":
        text = f"poly {solver.POLY_POWER:g}"
    elif name == "Plateau":
        text = f"x{solver.GAMMA:g} on plateau"
    elif "Cosine" in name:
        text = "cosine"
    else:
        text = f"x{solver.GAMMA:g} at {steps}" if steps else "constant"
    return text + (f", warm-up {solver.WARMUP_ITERS:,}" if solver.WARMUP_ITERS else "")

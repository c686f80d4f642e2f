"""What every task says alike on the page that tells what a run is about to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..text import count
from .environment import device_name


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
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / max(1, images)
    return f"{count(solver.MAX_ITER, 'iteration')} = {epochs:.4g} epochs"


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

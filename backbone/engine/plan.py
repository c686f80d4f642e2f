"""What every task says alike on the page that tells what a run is about to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..common.environment import device_name
from ..common.text import count
from . import distributed
from .clipping import Clipping
from .loading import resolve_workers

# More passes over the training set than any usual schedule makes: the schedule was chosen for another set.
MANY_EPOCHS = 400


def page(config: Any, rows: Iterable[tuple[str, str]], notes: Iterable[str]) -> str:
    """Return the plan of a run, a line each.

    Args:
        rows: (name, text) of what the task says: network, weights, data and, for a training, batch and schedule.
        notes: what was set or noticed.
    """
    rows = [
        *rows,
        *(("", note) for note in notes),
        ("device", device(config)),
        ("precision", precision(config)),
        ("output", config.OUTPUT_DIR),
    ]
    return "\n".join(["Plan", *(f"  {name:<10} {text}" for name, text in rows)])


def device(config: Any) -> str:
    """Return the device's name, and how many of it."""
    name, processes = device_name(torch.device(config.MODEL.DEVICE)), distributed.world_size()
    return name if processes == 1 else f"{processes} x {name}"


def precision(config: Any) -> str:
    """Return number type and memory layout."""
    amp = config.SOLVER.AMP
    text = f"{amp.DTYPE} where it is safe, else float32" if amp.ENABLED else "float32"
    text += ", channels_last" if config.MODEL.CHANNELS_LAST else ""
    if config.MODEL.get("CUDA_GRAPHS", False) and torch.device(config.MODEL.DEVICE).type == "cuda":
        return f"{text}, CUDA graphs"
    if not config.MODEL.get("COMPILE", False):
        return text
    mode = config.MODEL.get("COMPILE_MODE", "default")
    return text + (", compiled" if mode == "default" else f", compiled ({mode})")


def batch(config: Any) -> str:
    """Return the images of a step, and of each process."""
    total, processes = config.SOLVER.IMS_PER_BATCH, distributed.world_size()
    return f"{count(total, 'image')} a step, {total // processes} in each of {count(processes, 'process', 'processes')}"


def loaders(config: Any) -> str:
    """Return the loader workers of each process."""
    return f"{count(resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size()), 'loader worker')} each"


def class_weights(solver: Any) -> str:
    """Return how the classes are weighted in the loss, "" where they are not."""
    weights = ", ".join(f"{weight:g}" for weight in solver.CLASS_WEIGHTS)
    text = f"; classes weighted {weights}" if weights else ""
    return text + (f"; classes balanced, power {solver.CLASS_BALANCE:g}" if solver.CLASS_BALANCE else "")


def trained(network: nn.Module) -> str:
    """Return the parameters that are trained."""
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return f"{parameters / 1e6:.2f} M parameters trained"


def length(config: Any, images: int) -> str:
    """Return iterations, and epochs of so many images."""
    solver = config.SOLVER
    epochs = _epochs(config, images)
    shown = f"{epochs:,.0f}" if epochs >= 1000 else f"{epochs:.4g}"
    return f"{count(solver.MAX_ITER, 'iteration')} = {shown} epoch{'' if shown == '1' else 's'}"


def schedule_notes(config: Any, images: int, recipe: str = "") -> list[str]:
    """Return what is strange in the schedule of a training on so many images, a line each.

    Args:
        recipe: a config for small sets; "" for none.
    """
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
        small = f"; --config {recipe} is for small sets" if recipe else ""
        notes.append(
            f"SOLVER.MAX_ITER {solver.MAX_ITER:,} shows each of {count(images, 'image')} {epochs:,.0f} times; "
            f"100 epochs would be {shorter:,} (SOLVER.EPOCHS 100){small}"
        )
    return notes


def _epochs(config: Any, images: int) -> float:
    return config.SOLVER.MAX_ITER * config.SOLVER.IMS_PER_BATCH / max(1, images)


def course(solver: Any) -> str:
    """Return how the learning rate goes on from BASE_LR, and what else is done to gradients and weights."""
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
    text += f", warm-up {solver.WARMUP_ITERS:,}" if solver.WARMUP_ITERS else ""
    clip = Clipping.of(solver)
    text += f"; {clip}" if clip else ""
    return text + (f"; weights averaged ({solver.EMA_DECAY:g})" if solver.EMA_DECAY else "")

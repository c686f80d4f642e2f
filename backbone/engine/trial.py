"""What a training will take: some steps of it are run, and thrown away."""

from __future__ import annotations

import time
from typing import Any

import torch

from ..common.waiting import duration
from . import distributed
from .progress import peak_memory
from .solver import device_of, make_schedule, make_settings, quicken
from .task import Schedule, Task
from .trainer import Trainer

# The first step also allocates and chooses algorithms.
UNTIMED, TIMED = 1, 3
# Steps as long as this need no more of them.
LONG = 5.0  # seconds


def trial_rows(task: Task, optimizer: torch.optim.Optimizer, schedule: Schedule | None, config: Any) -> list[str]:
    """Train some steps, and return the time and the memory that the whole training will take, a row each.

    Evaluations are not counted. The weights have changed afterwards.
    """
    device, length = device_of(config), config.SOLVER.MAX_ITER
    if not length:
        return []
    quicken(task, optimizer, config)
    trainer = Trainer(task, optimizer, schedule or make_schedule(config), make_settings(config, best=""))
    task.model.train()
    steps = min(UNTIMED + TIMED, length)
    seconds, began = [], time.perf_counter()
    for batch in task.batches(0, steps):
        trainer.step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        seconds.append(now - began)
        began = now
        # All processes stop at the same step.
        if len(seconds) > UNTIMED and distributed.anyone(seconds[-1] > LONG):
            break
    # Where others use the machine too, the fastest step is nearest to what it takes alone.
    step = min(seconds[UNTIMED:] or seconds)
    of = f"{length:,} steps of {step:.3g} s, evaluations apart (timed on {len(seconds)})"
    what = "GPU memory" if device.type == "cuda" else "memory"
    return [f"{duration(step * length)} for {of}", f"{peak_memory(device) / 2**30:.1f} GiB of {what} at the peak"]

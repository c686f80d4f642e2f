"""Schedule and settings of the trainer from the keys of a config that all kinds of run share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ..common.environment import relative_path
from ..common.errors import ConfigError, RunError
from ..common.text import count
from ..networks.conv_norm import use_winograd
from ..networks.winograd import compiled
from . import distributed
from .averages import REMEDIES
from .clipping import Clipping
from .config import dump
from .record import LOGGER
from .schedule import Cosine, MultiStep, Poly, WarmUp
from .state import Settings
from .task import Task

log = logging.getLogger(LOGGER)


def make_schedule(config: Any) -> MultiStep | Cosine | Poly:
    """Return the learning-rate schedule of SOLVER."""
    solver = config.SOLVER
    warm_up = WarmUp(solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.WARMUP_METHOD)
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        return Cosine(solver.MAX_ITER, warm_up=warm_up)
    if solver.LR_SCHEDULER_NAME == "WarmupPolyLR":
        return Poly(solver.MAX_ITER, solver.POLY_POWER, warm_up)
    return MultiStep(tuple(solver.STEPS), solver.GAMMA, warm_up)


def quicken(task: Task, optimizer: torch.optim.Optimizer, config: Any) -> None:
    """Let a training take its steps in their fastest form."""
    fuse(optimizer)
    if config.MODEL.WINOGRAD:
        use_winograd(task.model, task.winograd_kinds, in_graphs=task.compiles_by_size)
        on_cpu = device_of(config).type == "cpu" and not config.SOLVER.AMP.ENABLED
        if on_cpu and distributed.is_main() and (missing := compiled.why_not()):
            log.info("3x3 convolutions run without their compiled kernels, which are faster: %s", missing)


def fuse(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimizer of a new run step in one pass over the memory, where torch has such a form.

    A run that goes on keeps the form in its checkpoint, and with it the last bits.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    fits = all(parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point() for parameter in parameters)
    for group in optimizer.param_groups:
        # The scaler of float16 is told nothing: it unscales first, and clipping sees the true gradients.
        if fits and group.get("fused", True) is None and not group.get("foreach") and not group.get("differentiable"):
            group["fused"] = True


def device_of(config: Any) -> torch.device:
    """Return MODEL.DEVICE; of GPUs, this process's own."""
    device = torch.device(config.MODEL.DEVICE)
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device


def check_device(name: str) -> None:
    """Raise ConfigError for what is no device, RunError for one that this machine does not have."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"MODEL.DEVICE is {name!r}; it may be cpu, cuda or one GPU of several, such as cuda:1")
    found = torch.cuda.device_count() if device.type == "cuda" else 1
    if not found:
        raise RunError("torch sees no GPU; use --device cpu (tools/doctor.py tells why)")
    if device.type == "cuda" and (device.index or 0) >= found:
        raise RunError(f"MODEL.DEVICE {name}: torch sees {count(found, 'GPU')}, numbered from 0")


def _portable(value: Any) -> Any:
    """Return a config's values with the paths below the working directory relative to it; checkpoints go to others."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    return relative_path(value) if isinstance(value, str) else value


def make_settings(config: Any, *, best: str) -> Settings:
    """Return the trainer's settings; `best` is "kind/metric" of the evaluation."""
    solver = config.SOLVER
    clip = Clipping.of(solver)
    return Settings(
        folder=Path(config.OUTPUT_DIR),
        device=device_of(config),
        max_iter=solver.MAX_ITER,
        batch_size=solver.IMS_PER_BATCH,
        log_period=solver.LOG_PERIOD,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        eval_period=config.TEST.EVAL_PERIOD,
        keep=solver.CHECKPOINTS_TO_KEEP,
        accumulate=solver.ACCUMULATE,
        clip=clip,
        amp=solver.AMP.DTYPE if solver.AMP.ENABLED else None,
        best=best,
        config=dump(_portable(config)),
        loggers=tuple(config.LOGGERS),
        remedies=REMEDIES if clip else f"{REMEDIES}, or set SOLVER.CLIP_GRADIENTS.ENABLED True",
    )

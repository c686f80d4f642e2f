"""What every run shares, a detector's or a classifier's: its request, its folder, its start and its end."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..common.errors import ConfigError, RunError
from ..common.files import remove_leftovers, write_json, write_text, writing
from ..weights import resolve
from . import checkpoint, distributed, joining, processes
from .config import dump
from .curves import PAGE
from .hooks import Hook
from .lock import locked
from .loggers import check_loggers
from .processes import Launch, by_torchrun
from .record import CONFIG, LOG, LOGGER, METRICS, RESULTS
from .request import Request
from .resume import check_same_everywhere
from .services import IDS
from .solver import make_schedule, make_settings, quicken
from .state import State
from .task import Schedule, Task
from .trainer import Trainer

log = logging.getLogger(LOGGER)
# By which torchrun's processes know their run again, when it starts them anew.
LAUNCHERS = "launchers.json"
# What every run writes into its folder besides its log.
RUN_FILES = (
    CONFIG,
    METRICS,
    RESULTS,
    checkpoint.POINTER,
    "model_*.pth*",
    "events.out.tfevents.*",
    IDS,
    "wandb",
    PAGE,
    LAUNCHERS,
)


def default_output(config_file: str, *, eval_only: bool) -> str:
    """Return the run folder when none is named: output/<name of the config>; an evaluation has one of its own."""
    return os.path.join("output", Path(config_file).stem + ("_eval" if eval_only else ""))


def launch(process: Callable[[Request], None], request: Request, setup: Launch, trained: str) -> None:
    """Check the request, then run `process(request)` in all processes of `setup`; a training holds its run folder.

    Args:
        trained: what --weights must be for an evaluation, in words.

    Raises:
        UserError: something in the request, the data or the machine is wrong, or another run writes into the folder.
    """
    check_request(request, setup, trained)
    if request.eval_only or request.keeps_nothing:
        processes.run(process, setup, (request,))
        return
    if not setup.is_first:
        processes.run(_train, setup, (process, request))
        return
    make_folder(request.folder)
    if not by_torchrun():
        # torchrun's processes may be started a second time, and know it when they have met.
        check_free(request)
    with locked(request.folder) as lock:
        # The run's processes hold it too, each for itself: it must not be free while one of them lives.
        lock.share()
        processes.run(_train, setup, (process, request))


def _train(process: Callable[[Request], None], request: Request) -> None:
    """Run one process of a training, when all have met."""
    if distributed.share(distributed.is_main() and _begun(request.folder)):
        # torchrun has started the processes anew: that means to go on, and never to throw away what this run has done.
        request = replace(request, resume=True, overwrite=False)
    if by_torchrun():
        _check_together(check_free, request)
    make_folder(request.folder)
    with locked(request.folder, shared=True):
        if request.resume:
            check_same_everywhere(request.folder)
        process(request)


def _check_together(check: Callable[[Request], None], request: Request) -> None:
    """Let the first process check; all raise what it finds."""
    problem = None
    if distributed.is_main():
        try:
            check(request)
        except RunError as error:
            problem = str(error)
    problem = distributed.share(problem)
    if problem:
        raise RunError(problem)


def _begun(folder: Path) -> bool:
    """Return whether a torchrun of these processes has begun, or gone on with, the run of this folder."""
    try:
        begun = json.loads((folder / LAUNCHERS).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(begun, list) and any(name in begun for name in joining.launchers())


def check_request(request: Request, setup: Launch, trained: str) -> None:
    """Check what can be known before any process starts.

    Args:
        trained: what --weights must be for an evaluation, in words.

    Raises:
        ConfigError: flags or keys exclude each other, or LOGGERS names no logger.
        RunError: the machine cannot run it.
    """
    config = request.config
    if request.eval_only and (request.resume or not config.MODEL.WEIGHTS):
        raise ConfigError(f"--eval-only needs --weights, {trained}, and goes without --resume")
    if request.draw is not None and (request.eval_only or request.plan_only):
        raise ConfigError("--draw shows training images; it goes without --eval-only and --plan")
    if request.draw is not None:
        make_folder(request.draw)
    setup.check()
    check_loggers(config.LOGGERS)
    fitted = config.SOLVER.get("AUTO_BATCH", False)
    if not (request.eval_only or fitted) and config.SOLVER.IMS_PER_BATCH % setup.world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {config.SOLVER.IMS_PER_BATCH} cannot be shared out to {setup.world_size} processes"
        )
    if request.resume and request.overwrite:
        raise RunError("--resume and --overwrite exclude each other")
    if config.MODEL.WEIGHTS and not request.resume:
        resolve(config.MODEL.WEIGHTS)  # a name is downloaded once, before the processes ask for it


def check_free(request: Request) -> None:
    """Raise RunError where the run folder holds a run that is neither resumed nor thrown away."""
    folder = request.folder
    holds_run = (folder / CONFIG).is_file() or checkpoint.newest(folder) is not None
    if holds_run and not (request.resume or request.overwrite):
        raise RunError(
            f"{folder} holds a run already; --resume goes on with it, --overwrite starts anew, or name another folder"
        )


def make_folder(folder: Path) -> None:
    """Make the run folder; raises RunError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror or error}") from None


def open_folder(
    request: Request, config: Any, plan: str, files: Iterable[str] = (), beside: Mapping[str, Any] | None = None
) -> None:
    """Say the plan and write the config; of --overwrite, remove the former run first.

    Called when data and weights have passed their checks, so that nothing is lost for a mistake.

    Args:
        files: patterns of what this kind of run writes, beside RUN_FILES.
        beside: values of JSON files that lie beside the config.
    """
    if not distributed.is_main():
        return
    folder = request.folder
    if request.overwrite:
        remove_run(folder, (*RUN_FILES, *files))
    log.info(plan)
    remove_leftovers(folder)
    write_text(folder / CONFIG, dump(config))
    for name, value in (beside or {}).items():
        write_json(folder / name, value)
    if launchers := joining.launchers():
        write_json(folder / LAUNCHERS, launchers)


def remove_run(folder: Path, patterns: Iterable[str]) -> None:
    """Remove the files of a former run, and no others; log.txt, which this run writes by now, is emptied."""
    with writing(folder):
        for pattern in patterns:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if (folder / LOG).is_file():
            os.truncate(folder / LOG, 0)


def train_task(
    task: Task,
    optimizer: torch.optim.Optimizer,
    config: Any,
    *,
    best: str,
    saved: Path | None,
    schedule: Schedule | None = None,
    hooks: Sequence[Hook] = (),
) -> State:
    """Train from the start, or from the checkpoint `saved`, to the end of the schedule.

    Args:
        best: "kind/metric" of the evaluation by which the best weights are chosen.
        schedule: by default the one of SOLVER.
    """
    quicken(task, optimizer, config)
    trainer = Trainer(task, optimizer, schedule or make_schedule(config), make_settings(config, best=best), hooks)
    if saved:
        trainer.resume(saved)
        if distributed.is_main():
            checkpoint.set_aside(saved.parent, trainer.state.iteration)
    else:
        # Each process draws its own random numbers.
        checkpoint.seed_everything(config.SEED + distributed.rank())
    return trainer.train()

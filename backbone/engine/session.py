"""What every run shares, a detector's or a classifier's: its request, its folder, its start and its end."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..common.errors import ConfigError, RunError
from ..common.files import remove_leftovers, write_text, writing
from . import checkpoint, distributed
from .config import differences, dump, read_yaml, to_plain
from .lock import locked
from .record import CONFIG, LOG, LOGGER, METRICS, RESULTS
from .solver import make_schedule, make_settings
from .task import Schedule, Task
from .trainer import State, Trainer

log = logging.getLogger(LOGGER)
# Keys that a resumed run may have otherwise: they change neither weights nor numbers.
FREE_KEYS = {
    "OUTPUT_DIR",
    "DATALOADER.NUM_WORKERS",
    "MODEL.DEVICE",
    "SOLVER.CHECKPOINTS_TO_KEEP",
    "SOLVER.LOG_PERIOD",
    "SOLVER.CHECKPOINT_PERIOD",
}
# What every run writes into its folder besides its log.
RUN_FILES = (CONFIG, METRICS, RESULTS, checkpoint.POINTER, "model_*.pth", "events.out.tfevents.*")


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        config: frozen; its OUTPUT_DIR is the run folder.
        given: config keys that stood on the command line.
        force: resume although the config has changed.
        overwrite: throw away a former run in the folder.
        tests: what an evaluation computes beyond its default, by names that the kind of run knows.
        predictions: folder for what the last test predicted, where the kind of run writes it; None for none.
        json: file for a copy of results.json; None for none.
    """

    config: Any
    given: Collection[str] = field(default_factory=set)
    resume: bool = False
    eval_only: bool = False
    force: bool = False
    overwrite: bool = False
    tests: tuple[str, ...] = ()
    predictions: Path | None = None
    json: Path | None = None

    @property
    def folder(self) -> Path:
        return Path(self.config.OUTPUT_DIR)


def default_output(config_file: str, *, eval_only: bool) -> str:
    """Return the run folder when none is named: output/<name of the config>; an evaluation has one of its own."""
    return os.path.join("output", Path(config_file).stem + ("_eval" if eval_only else ""))


def launch(process: Callable[[Request], None], request: Request, setup: distributed.Launch, trained: str) -> None:
    """Check the request, then run `process(request)` in all processes of `setup`; a training holds its run folder.

    Args:
        trained: what --weights must be for an evaluation, in words.

    Raises:
        UserError: something in the request, the data or the machine is wrong, or another run writes into the folder.
    """
    check_request(request, setup, trained)
    # Of several machines, or processes of torchrun, the first one holds it for all.
    first = setup.machine_rank == 0 and os.environ.get("RANK", "0") == "0"
    with contextlib.nullcontext() if request.eval_only or not first else locked(request.folder):
        distributed.launch(process, setup, (request,))


def check_request(request: Request, setup: distributed.Launch, trained: str) -> None:
    """Check what can be known before any process starts, and make the run folder of a training.

    Args:
        trained: what --weights must be for an evaluation, in words.

    Raises:
        ConfigError: flags or keys exclude each other.
        RunError: the machine cannot run it, or the run folder holds another run or cannot be made.
    """
    config = request.config
    if request.eval_only and (request.resume or not config.MODEL.WEIGHTS):
        raise ConfigError(f"--eval-only needs --weights, {trained}, and goes without --resume")
    setup.check()
    if not request.eval_only and config.SOLVER.IMS_PER_BATCH % setup.world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {config.SOLVER.IMS_PER_BATCH} cannot be shared out to {setup.world_size} processes"
        )
    if not request.eval_only:
        prepare_folder(request)


def prepare_folder(request: Request) -> None:
    """Check that the run folder is free, or that its run may be resumed or thrown away.

    Raises:
        RunError: it holds another run, or cannot be made.
    """
    folder = request.folder
    holds_run = (folder / CONFIG).is_file() or checkpoint.newest(folder) is not None
    if request.resume and request.overwrite:
        raise RunError("--resume and --overwrite exclude each other")
    if holds_run and not (request.resume or request.overwrite):
        raise RunError(
            f"{folder} holds a run already; --resume goes on with it, --overwrite starts anew, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror or error}") from None


def checkpoint_to_resume(request: Request, config: Any, free: Collection[str]) -> tuple[Path | None, list[str]]:
    """Return the checkpoint that the run goes on from, if any, and notes for the plan.

    Args:
        config: as it will run; it may differ from the request's by what follows from data and batch.
        free: keys that may have changed, beside FREE_KEYS.

    Raises:
        ConfigError: the config is not the one that the run began with, and --force was not given.
    """
    if not request.resume:
        return None, []
    notes = check_unchanged(config, request.folder, FREE_KEYS | set(free), force=request.force)
    saved = checkpoint.newest(request.folder)
    if saved is None:
        notes.append(f"{request.folder} holds no checkpoint to resume from: a new run")
    return saved, notes


def check_unchanged(config: Any, folder: Path, free: Collection[str], *, force: bool) -> list[str]:
    """Compare with the config that the run was started with; return a note for the plan if --force lets it pass."""
    path = folder / CONFIG
    if not path.is_file():
        return []
    changed = [key for key in differences(read_yaml(path), to_plain(config)) if key not in free]
    if not changed:
        return []
    shown = ", ".join(changed[:6]) + (", ..." if len(changed) > 6 else "")
    if not force:
        raise ConfigError(
            f"{folder}: the config has changed since the run began: {shown}; --force resumes all the same"
        )
    return [f"resumed with a changed config (--force): {shown}"]


def open_folder(request: Request, config: Any, plan: str, files: Iterable[str] = ()) -> None:
    """Say the plan and write the config; of --overwrite, remove the former run first.

    Called when data and weights have passed their checks, so that nothing is lost for a mistake.

    Args:
        files: patterns of what this kind of run writes, beside RUN_FILES.
    """
    if not distributed.is_main():
        return
    folder = request.folder
    if request.overwrite:
        remove_run(folder, (*RUN_FILES, *files))
    log.info(plan)
    remove_leftovers(folder)
    write_text(folder / CONFIG, dump(config))


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
) -> State:
    """Train from the start, or from the checkpoint `saved`, to the end of the schedule.

    Args:
        best: "kind/metric" of the evaluation by which the best weights are chosen.
        schedule: by default the one of SOLVER.
    """
    trainer = Trainer(task, optimizer, schedule or make_schedule(config), make_settings(config, best=best))
    if saved:
        trainer.resume(saved)
    else:
        # Each process draws its own random numbers.
        checkpoint.seed_everything(config.SEED + distributed.rank())
    return trainer.train()

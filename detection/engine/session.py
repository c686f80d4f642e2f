"""From a config to a trained and evaluated detector in a run folder."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer

from backbone import ConfigError, RunError
from backbone.engine import checkpoint, distributed
from backbone.engine.config import differences, dump, read_yaml
from backbone.engine.files import remove_leftovers, write_text, writing
from backbone.engine.progress import duration
from backbone.engine.record import CONFIG, LOG, LOGGER, METRICS, RESULTS, start_logging
from backbone.engine.schedule import Cosine, MultiStep, WarmUp
from backbone.engine.trainer import Settings, Trainer

from .datasets import Sets, load_sets
from .model import build, fit_classes, load_trained, plain, prepare_for_training
from .plan import plan
from .results import PICTURES, SHEET, TABLE, report
from .scale import scale_schedule
from .task import DetectionTask

log = logging.getLogger(LOGGER)
# Keys that a resumed run may have otherwise: they change neither weights nor numbers.
FREE_KEYS = {
    "OUTPUT_DIR",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.ROOT",
    "MODEL.DEVICE",
    "SOLVER.CHECKPOINTS_TO_KEEP",
    "SOLVER.LOG_PERIOD",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.PICTURES",
    "TEST.PICTURE_SCORE",
    "TEST.EVAL_ENGINE",
}
# What a run writes into its folder besides its log.
RUN_FILES = (
    *(CONFIG, METRICS, RESULTS, TABLE, SHEET, PICTURES, checkpoint.POINTER),
    *("model_*.pth", "predictions_*.json", "events.out.tfevents.*"),
)


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        config: frozen; its OUTPUT_DIR is the run folder.
        given: config keys that stood on the command line.
        force: resume although the config has changed.
        overwrite: throw away a former run in the folder.
    """

    config: CfgNode
    given: Collection[str] = field(default_factory=set)
    resume: bool = False
    eval_only: bool = False
    force: bool = False
    overwrite: bool = False


def run(request: Request, setup: distributed.Launch) -> None:
    """Train (or evaluate) in all processes of `setup`.

    Raises:
        UserError: something in the request, the data or the machine is wrong; nothing was changed.
    """
    config = request.config
    if request.eval_only and (request.resume or not config.MODEL.WEIGHTS):
        raise ConfigError(
            "--eval-only needs --weights, the checkpoint of a trained detector, and goes without --resume"
        )
    setup.check()
    if not request.eval_only and config.SOLVER.IMS_PER_BATCH % setup.world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {config.SOLVER.IMS_PER_BATCH} cannot be shared out to {setup.world_size} processes"
        )
    prepare_folder(request)
    distributed.launch(run_process, setup, (request,))


def prepare_folder(request: Request) -> None:
    """Check that the run folder is free, or that its run may be resumed or thrown away.

    Raises:
        RunError: it holds another run, or cannot be made.
    """
    folder = Path(request.config.OUTPUT_DIR)
    if request.eval_only:
        return
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


def remove_run(folder: Path) -> None:
    """Remove the files of a former run, and no others; log.txt, which this run writes by now, is emptied."""
    with writing(folder):
        for pattern in RUN_FILES:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (folder / LOG).is_file():
            os.truncate(folder / LOG, 0)


def run_process(request: Request) -> None:
    """Run one process of a training or an evaluation."""
    # Forked or spawned, each process has its own registries.
    from .. import register

    register()
    began = time.monotonic()
    config = request.config
    folder = Path(config.OUTPUT_DIR)
    start_logging(folder if distributed.is_main() else None, quiet=not distributed.is_main())
    # All processes build the same model; later each draws for itself.
    checkpoint.seed_everything(config.SEED)

    sets = load_sets(config, training=not request.eval_only)
    config = fit_classes(config, sets.classes, set(request.given))
    if request.eval_only:
        evaluate_only(config, sets, began)
        return
    config, notes = scale_schedule(config, request.given)
    train(config, sets, request, notes, began)


def evaluate_only(config: CfgNode, sets: Sets, began: float) -> None:
    """Evaluate MODEL.WEIGHTS and write the results."""
    model = build(config)
    weights = load_trained(model, config.MODEL.WEIGHTS, sets.classes)
    processes = distributed.world_size()
    log.info(plan(model, sets, config, weights=weights, processes=processes, notes=[]))
    model.eval()
    task = DetectionTask(model, sets, config)
    results = task.evaluate()
    if distributed.is_main():
        report(task, results, config, extra={"weights": config.MODEL.WEIGHTS})
        log.info("took %s", duration(time.monotonic() - began))


def train(config: CfgNode, sets: Sets, request: Request, notes: list[str], began: float) -> None:
    """Train, with the evaluations on the way, and write the results."""
    folder = Path(config.OUTPUT_DIR)
    saved = checkpoint.newest(folder) if request.resume else None
    if request.resume:
        notes = notes + _check_unchanged(config, folder, force=request.force)
        if saved is None:
            notes.append(f"{folder} holds no checkpoint to resume from: a new run")
    model = build(config)
    model.train()
    weights = f"resumed from {saved}" if saved else prepare_for_training(model, config, sets.train)
    # Nothing of a former run goes before data and weights have passed their checks.
    if request.overwrite and distributed.is_main():
        remove_run(folder)
    log.info(plan(model, sets, config, weights=weights, processes=distributed.world_size(), notes=notes))
    if distributed.is_main():
        remove_leftovers(folder)
        write_text(folder / CONFIG, dump(config))
    task = DetectionTask(model, sets, config)
    trainer = Trainer(task, build_optimizer(config, model), make_schedule(config), make_settings(config))
    if saved:
        trainer.resume(saved)
    else:
        # Each process draws its own samples of anchors and regions.
        checkpoint.seed_everything(config.SEED + distributed.rank())
    state = trainer.train()
    if distributed.is_main():
        best = {"AP": state.best, "iteration": state.best_iteration} if state.best_iteration >= 0 else None
        seconds = time.monotonic() - began
        report(
            task,
            state.results,
            config,
            extra={"iteration": state.iteration, "best": best, "seconds": round(seconds, 1)},
        )
        log.info("took %s", duration(seconds))


def _check_unchanged(config: CfgNode, folder: Path, *, force: bool) -> list[str]:
    """Compare with the config that the run was started with; return a note for the plan if --force lets it pass."""
    path = folder / CONFIG
    if not path.is_file():
        return []
    before = read_yaml(path)
    changed = [key for key in differences(before, plain(config)) if key not in FREE_KEYS]
    if not changed:
        return []
    shown = ", ".join(changed[:6]) + (", ..." if len(changed) > 6 else "")
    if not force:
        raise ConfigError(
            f"{folder}: the config has changed since the run began: {shown}; --force resumes all the same"
        )
    return [f"resumed with a changed config (--force): {shown}"]


def make_schedule(config: CfgNode) -> MultiStep | Cosine:
    """Return the learning-rate schedule of SOLVER."""
    solver = config.SOLVER
    warm_up = WarmUp(solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.WARMUP_METHOD)
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        return Cosine(solver.MAX_ITER, warm_up=warm_up)
    return MultiStep(tuple(solver.STEPS), solver.GAMMA, warm_up)


def make_settings(config: CfgNode) -> Settings:
    """Return the trainer's settings."""
    solver = config.SOLVER
    device = torch.device(config.MODEL.DEVICE)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    first = f"{config.DATASETS.TEST[0]}/" if len(config.DATASETS.TEST) > 1 else ""
    return Settings(
        folder=Path(config.OUTPUT_DIR),
        device=device,
        max_iter=solver.MAX_ITER,
        batch_size=solver.IMS_PER_BATCH,
        log_period=solver.LOG_PERIOD,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        eval_period=config.TEST.EVAL_PERIOD,
        keep=solver.CHECKPOINTS_TO_KEEP,
        amp=solver.AMP.DTYPE if solver.AMP.ENABLED else None,
        best=f"{first}bbox/AP",
        config=dump(config),
    )


def default_output(config_file: str, *, eval_only: bool) -> str:
    """Return the run folder when none is named: output/<name of the config>; an evaluation has one of its own."""
    return os.path.join("output", Path(config_file).stem + ("_eval" if eval_only else ""))

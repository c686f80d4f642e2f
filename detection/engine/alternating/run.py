"""The four steps one after another, each in a run folder of its own below the run's, and the detector they make."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from backbone.common.environment import provenance
from backbone.common.files import write_json
from backbone.common.waiting import duration
from backbone.engine import checkpoint, distributed
from backbone.engine.config import dump
from backbone.engine.curves import write_curves
from backbone.engine.record import LOGGER, RESULTS, start_logging
from backbone.engine.results import say_weights
from backbone.engine.resume import check_classes, check_unchanged, checkpoint_to_resume
from backbone.engine.session import Request, open_folder, train_task
from backbone.engine.state import State, best_figure
from backbone.engine.task_run import run_hooks

from ...config import default_config
from ...data.proposals import Proposals, load_proposals, save_proposals
from ...modeling.build import build
from ...weights.load import StartingWeights, open_starting_weights
from ..datasets import Sets
from ..folder import ALL_FREE_KEYS, FREE_KEYS, RUN_FILES
from ..model import make_optimizer, prepare_for_training
from ..plan import images_of_an_epoch, plan, schedule_line
from ..results import report
from ..scoring import best_of
from ..task import DetectionTask
from .detector import StepRCNN
from .propose import propose, proposer
from .steps import STEPS, Step, config_of

log = logging.getLogger(LOGGER)


def train_alternating(
    config: CfgNode,
    sets: Sets,
    weights: StartingWeights | None,
    request: Request,
    notes: list[str],
    began: float,
    beside: dict[str, Any],
) -> None:
    """Run the steps that are not done, then write the whole detector and its results into the run folder.

    Args:
        beside: values of JSON files that lie beside the config.
    """
    changed = []
    if request.resume:
        changed = check_unchanged(config, request.folder, ALL_FREE_KEYS, default_config(), force=request.force)
        ended = [path for step in STEPS if (path := request.folder / step.name / checkpoint.FINAL).is_file()]
        if ended:
            changed += check_classes(ended[-1], sets.classes, force=request.force)
    # The last step is never left out: like a joint run that has ended, it is evaluated again.
    todo = distributed.share([step for step in STEPS if not (request.resume and step.is_done(request.folder))])
    todo = todo if STEPS[-1] in todo else [*todo, STEPS[-1]]
    if request.plan_only:
        log.info(_overview(config, sets, todo, [*notes, *changed]))
        return
    open_folder(request, config, _overview(config, sets, todo, [*notes, *changed]), RUN_FILES, beside)
    distributed.barrier()
    for step in todo:
        # One detector at a time in memory.
        task = state = None
        _log_into(request.folder / step.name)
        first = weights if not step.shared_fixed else None
        task, state = _run_step(step, config, sets, first, request)
        distributed.barrier()
    _log_into(request.folder)
    if distributed.is_main():
        _finish(task, state, config, request.folder, time.monotonic() - began)


def _log_into(folder: Path) -> None:
    main = distributed.is_main()
    start_logging(folder if main else None, quiet=not main)


def _overview(config: CfgNode, sets: Sets, todo: list[Step], notes: list[str]) -> str:
    rows = [f"  {step.name:<16} {step.says}{'' if step in todo else ' (done)'}" for step in STEPS]
    images = config.SOLVER.FAST_RCNN_IMAGES * config.SOLVER.IMS_PER_BATCH
    regions = config_of(STEPS[-1], config).MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    fast = f"; Fast R-CNN's have {images} images of {regions} regions" if config.SOLVER.FAST_RCNN_IMAGES > 1 else ""
    lines = [
        f"each step: {schedule_line(config, images_of_an_epoch(sets.train, config))}{fast}",
        *notes,
        f"output {config.OUTPUT_DIR}, a folder for each",
    ]
    return "\n".join(["Alternating training in four steps", *rows, *(f"  {line}" for line in lines)])


def _run_step(
    step: Step, config: CfgNode, sets: Sets, weights: StartingWeights | None, request: Request
) -> tuple[DetectionTask, State]:
    """Train one step, from where it stands; return its task and the state it ended in."""
    began = time.monotonic()
    own = config_of(step, config)
    sets = sets if step == STEPS[-1] else Sets(sets.train, [])
    step_request = replace(request, config=own, overwrite=False)
    proposals = _proposals_for(step, config, sets, request)
    # Every step builds the same random network, whether the steps before it ran just now or in a former call.
    checkpoint.seed_everything(own.SEED)
    model = build(own, StepRCNN)
    saved, notes = None, []
    if request.resume and checkpoint.newest(step_request.folder) is not None:
        free = FREE_KEYS | {"MODEL.WEIGHTS"}
        saved, notes = checkpoint_to_resume(step_request, own, free, sets.classes, default_config())
    first = f"resumed from {saved}" if saved else _start_from(model, own, sets, weights)
    model.begin(step).train()
    shown = plan(model, sets, own, weights=first, notes=[step.says, *notes])
    open_folder(step_request, own, f"Step {step.number} of {len(STEPS)}\n{shown}", RUN_FILES)
    task = DetectionTask(model, sets, own, proposals, request.transforms)
    hooks, best = run_hooks(request, own), best_of(sets.test, own.TEST.BEST if sets.test else "")
    state = train_task(task, make_optimizer(own, model), own, best=best, saved=saved, hooks=hooks)
    if distributed.is_main():
        seconds = round(time.monotonic() - began, 1)
        facts = {"iteration": state.iteration, "seconds": seconds, **provenance(torch.device(own.MODEL.DEVICE))}
        write_json(step_request.folder / RESULTS, {**state.results, **facts})
        write_curves(step_request.folder)
        log.info("%s done, took %s", step.name, duration(seconds))
    return task, state


def _start_from(model: StepRCNN, config: CfgNode, sets: Sets, weights: StartingWeights | None) -> str:
    if weights is None and config.MODEL.WEIGHTS:
        weights = open_starting_weights(config.MODEL.WEIGHTS, config.MODEL.WEIGHTS_PART)
    return prepare_for_training(model, config, sets.train, weights)


def _proposals_for(step: Step, config: CfgNode, sets: Sets, request: Request) -> Proposals | None:
    """Return the proposals that a step of Fast R-CNN trains on, made now if they are not there."""
    if step.part == "rpn":
        return None
    path = request.folder / step.before.proposals
    # Without --resume, a file is of a former run.
    if not distributed.share(request.resume and path.is_file()):
        model = proposer(config, str(request.folder / step.before.name / checkpoint.FINAL))
        proposed = propose(model, sets.train, config, title=f"proposals of {step.before.name}")
        if proposed is not None:
            save_proposals(path, proposed.proposals, sets.train)
            log.info("%s: %s", path, proposed.line())
        distributed.barrier()
    return load_proposals(path, sets.train)


def _finish(task: DetectionTask, state: State, config: CfgNode, folder: Path, seconds: float) -> None:
    """Write what a joint training leaves: model_final.pth, model_best.pth and the results of the last step."""
    last = folder / STEPS[-1].name
    for name in (checkpoint.FINAL, checkpoint.BEST):
        if (last / name).is_file():
            checkpoint.save(folder / name, {**checkpoint.load(last / name), "config": dump(config)})
    figure = best_of(task.sets.test, config.TEST.BEST)
    best = {**best_figure(figure, state.best), "iteration": state.best_iteration} if state.best_iteration >= 0 else None
    extra: dict[str, Any] = {"iteration": state.iteration, "best": best, "seconds": round(seconds, 1)}
    extra["broken_images"] = len(task.broken.messages)
    if state.stopped:
        extra["stopped"] = state.stopped
    report(task, state.results, config, extra={**extra, "scheme": "alternating"})
    say_weights(folder, state, figure, config.SOLVER.EMA_DECAY)
    log.info("took %s", duration(seconds))

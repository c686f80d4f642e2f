"""From a config to a trained and evaluated detector in a run folder."""

from __future__ import annotations

import logging
import time

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer

from backbone.engine import checkpoint, distributed
from backbone.engine.progress import duration
from backbone.engine.record import CONFIG, LOGGER, start_logging
from backbone.engine.scale import scale_schedule
from backbone.engine.session import Request, checkpoint_to_resume, launch, open_folder, train_task

from ..config.keys import idle_keys
from ..inference.methods import check_ensemble
from ..modeling.build import build
from ..weights.keys import WEIGHT_KEYS
from ..weights.load import StartingWeights, open_starting_weights
from .alternating.run import train_alternating
from .datasets import Sets, load_sets
from .folder import FREE_KEYS, RUN_FILES
from .model import fit_classes, load_trained, prepare_for_training
from .plan import plan
from .results import report
from .scoring import best_of
from .task import DetectionTask

log = logging.getLogger(LOGGER)


def run(request: Request, setup: distributed.Launch) -> None:
    """Train (or evaluate) in all processes of `setup`.

    Raises:
        UserError: something in the request, the data or the machine is wrong; nothing was changed.
    """
    launch(run_process, request, setup, "the checkpoint of a trained detector")


def run_process(request: Request) -> None:
    """Run one process of a training or an evaluation."""
    # Forked or spawned, each process has its own registries.
    from .. import register

    register()
    began = time.monotonic()
    config = request.config
    start_logging(request.folder if distributed.is_main() else None, quiet=not distributed.is_main())
    # All processes build the same model; later each draws for itself.
    checkpoint.seed_everything(config.SEED)
    set_backends(config)
    check_ensemble(config)

    sets = load_sets(config, training=not request.eval_only)
    config = fit_classes(config, sets.classes, set(request.given))
    config, weights, notes = settle_weights(config, request)
    notes = [*notes, *idle_keys(config, request.given)]
    if request.eval_only:
        evaluate_only(config, sets, weights, notes, began)
        return
    config, scaled = scale_schedule(config, request.given)
    train_by_scheme = train_alternating if config.SOLVER.SCHEME == "alternating" else train
    train_by_scheme(config, sets, weights, request, [*notes, *scaled], began)


def set_backends(config: CfgNode) -> None:
    """Obey CUDNN_BENCHMARK, and FLOAT32_PRECISION, which the config of detectron2's main branch has."""
    torch.backends.cudnn.benchmark = config.CUDNN_BENCHMARK
    precision = config.get("FLOAT32_PRECISION", "")
    if precision:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def settle_weights(config: CfgNode, request: Request) -> tuple[CfgNode, StartingWeights | None, list[str]]:
    """Read MODEL.WEIGHTS and fit the config to them; a run that goes on keeps what it began with.

    Returns:
        The config, the weights (None without any, or where a checkpoint takes their place), and notes for the plan.
    """
    if request.resume and _has_begun(request):
        kept = {key: value for key, value in WEIGHT_KEYS.of_run(request.folder).items() if key not in request.given}
        return WEIGHT_KEYS.adopt(config, kept, str(request.folder), request.given)[0], None, []
    if not config.MODEL.WEIGHTS:
        return config, None, []
    weights = open_starting_weights(config.MODEL.WEIGHTS)
    config, notes = WEIGHT_KEYS.adopt(config, weights.wants, weights.source, request.given, assumed=weights.assumed)
    return config, weights, notes


def _has_begun(request: Request) -> bool:
    if request.config.SOLVER.SCHEME == "alternating":
        # Its checkpoints lie in the folders of its steps, which read the weights where they need them.
        return (request.folder / CONFIG).is_file()
    return checkpoint.newest(request.folder) is not None


def evaluate_only(config: CfgNode, sets: Sets, weights: StartingWeights, notes: list[str], began: float) -> None:
    """Evaluate a trained detector and write the results."""
    model = build(config)
    loaded = load_trained(model, weights, sets.classes)
    processes = distributed.world_size()
    log.info(plan(model, sets, config, weights=loaded, processes=processes, notes=notes))
    model.eval()
    task = DetectionTask(model, sets, config)
    results = task.evaluate()
    if distributed.is_main():
        report(task, results, config, extra={"weights": config.MODEL.WEIGHTS})
        log.info("took %s", duration(time.monotonic() - began))


def train(
    config: CfgNode,
    sets: Sets,
    weights: StartingWeights | None,
    request: Request,
    notes: list[str],
    began: float,
) -> None:
    """Train, with the evaluations on the way, and write the results."""
    saved, resumed = checkpoint_to_resume(request, config, FREE_KEYS)
    model = build(config)
    model.train()
    first = f"resumed from {saved}" if saved else prepare_for_training(model, config, sets.train, weights)
    shown = plan(model, sets, config, weights=first, processes=distributed.world_size(), notes=[*notes, *resumed])
    open_folder(request, config, shown, RUN_FILES)
    task = DetectionTask(model, sets, config)
    state = train_task(task, build_optimizer(config, model), config, best=best_of(sets.test), saved=saved)
    if distributed.is_main():
        best = {"AP": state.best, "iteration": state.best_iteration} if state.best_iteration >= 0 else None
        seconds = time.monotonic() - began
        extra = {"iteration": state.iteration, "best": best, "seconds": round(seconds, 1)}
        extra["broken_images"] = len(task.broken.messages)
        report(task, state.results, config, extra=extra)
        log.info("took %s", duration(seconds))

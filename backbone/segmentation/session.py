"""From a config to a trained and tested segmentation network in a run folder."""

from __future__ import annotations

import logging
import time
from typing import Any

from ..common.errors import ConfigError
from ..engine import checkpoint, distributed
from ..engine.progress import duration
from ..engine.record import LOGGER, start_logging
from ..engine.scale import scale_schedule
from ..engine.session import checkpoint_to_resume, launch, open_folder, train_task
from .data import SegmentationSet, open_sets
from .data.check import check_set
from .networks import SegmentationNetwork, build
from .optimizer import make_optimizer
from .plan import plan
from .request import SegmentationRequest
from .results import BACKBONE, PICTURES, SHEET, TABLE, report, write_backbone
from .task import KIND, SegmentationTask
from .weights import WEIGHT_KEYS, StartingWeights, fit_head, load_initial, load_whole, open_starting_weights

log = logging.getLogger(LOGGER)
# Keys of segmentation that a resumed run may have otherwise.
FREE_KEYS = {"DATA.ROOT", "DATA.MAX_BAD_IMAGES", "TEST.SCALES", "TEST.FLIP", "TEST.PICTURES"}
# What segmentation writes into a run folder.
RUN_FILES = (TABLE, BACKBONE, PICTURES, SHEET)
BEST = f"{KIND}/mIoU"


def run(request: SegmentationRequest, setup: distributed.Launch) -> None:
    """Train (or test) in all processes of `setup`.

    Raises:
        UserError: something in the request, the data or the machine is wrong; nothing was changed.
    """
    if not request.eval_only:
        check_batch(request.config, setup.world_size)
    launch(run_process, request, setup, "a trained segmentation network")


def check_batch(config: Any, processes: int) -> None:
    """Raise ConfigError where the batch normalisation of a head would see one value a channel."""
    solver, model = config.SOLVER, config.MODEL
    alone = solver.IMS_PER_BATCH if model.NORM == "sync_bn" else solver.IMS_PER_BATCH // processes
    if model.HEAD.NAME == "deeplabv3" and alone < 2:
        raise ConfigError(
            "MODEL.HEAD.NAME deeplabv3 normalises image means over the batch: SOLVER.IMS_PER_BATCH must give each "
            "process 2 images or more (with MODEL.NORM sync_bn, all processes together)"
        )


def run_process(request: SegmentationRequest) -> None:
    """Run one process of a training or a test."""
    began = time.monotonic()
    start_logging(request.folder if distributed.is_main() else None, quiet=not distributed.is_main())
    # All processes build the same network; later each draws for itself.
    checkpoint.seed_everything(request.config.SEED)
    config, weights, notes = settle(request)
    known = weights.classes if weights is not None and request.eval_only else ()
    train_set, test_set = open_sets(config, training=not request.eval_only, classes=known)
    if request.eval_only:
        notes += check_set(test_set, config, training=False)
        test_only(config, weights, test_set, request, notes, began)
        return
    notes += [*check_set(train_set, config, training=True), *check_set(test_set, config, training=False)]
    config, scaled = scale_schedule(config, request.given)
    train(config, weights, (train_set, test_set), request, [*notes, *scaled], began)


def settle(request: SegmentationRequest) -> tuple[Any, StartingWeights | None, list[str]]:
    """Return the config with what the weights ask for, the weights where they are read, and notes for the plan.

    A run that is resumed keeps what was settled when it began.
    """
    config = request.config
    if request.resume and checkpoint.newest(request.folder) is not None:
        config, _ = WEIGHT_KEYS.adopt(config, WEIGHT_KEYS.of_run(request.folder), str(request.folder), request.given)
        return config, None, []
    if not config.MODEL.WEIGHTS:
        return config, None, []
    weights = open_starting_weights(config.MODEL.WEIGHTS)
    config, notes = WEIGHT_KEYS.adopt(config, weights.wants, weights.source, request.given, assumed=weights.assumed)
    config, compared = fit_head(config, weights, request.given, testing=request.eval_only)
    return config, weights, [*notes, *compared]


def test_only(
    config: Any,
    weights: StartingWeights,
    images: SegmentationSet,
    request: SegmentationRequest,
    notes: list[str],
    began: float,
) -> None:
    """Test MODEL.WEIGHTS and write the results."""
    network = build(config, len(images.classes))
    loaded = load_whole(network, weights, images.classes)
    processes = distributed.world_size()
    log.info(plan(network, None, images, config, weights=loaded, processes=processes, notes=notes))
    task = SegmentationTask(network, None, images, config, predictions=request.predictions)
    task.evaluate()
    if distributed.is_main():
        seconds = time.monotonic() - began
        extra = {"weights": config.MODEL.WEIGHTS, "seconds": round(seconds, 1)}
        report(task, config, extra=extra, json=request.json)
        log.info("took %s", duration(seconds))


def train(
    config: Any,
    weights: StartingWeights | None,
    sets: tuple[SegmentationSet, SegmentationSet],
    request: SegmentationRequest,
    notes: list[str],
    began: float,
) -> None:
    """Train, with the tests on the way, and write results, pictures and the backbone file."""
    train_set, test_set = sets
    saved, resumed = checkpoint_to_resume(request, config, FREE_KEYS)
    network = build(config, len(test_set.classes))
    network.train()
    first = f"resumed from {saved}" if saved else _first_weights(network, weights, test_set, config)
    task = SegmentationTask(network, train_set, test_set, config, predictions=request.predictions)
    processes = distributed.world_size()
    shown = plan(network, train_set, test_set, config, weights=first, processes=processes, notes=[*notes, *resumed])
    open_folder(request, config, shown, RUN_FILES)
    state = train_task(task, make_optimizer(network, config), config, best=BEST, saved=saved)
    if distributed.is_main():
        write_backbone(task, config)
        seconds = time.monotonic() - began
        best = {"mIoU": state.best, "iteration": state.best_iteration} if state.best_iteration >= 0 else None
        extra = {"iteration": state.iteration, "best": best, "seconds": round(seconds, 1)}
        report(task, config, extra=extra, json=request.json)
        log.info("took %s", duration(seconds))


def _first_weights(
    network: SegmentationNetwork, weights: StartingWeights | None, images: SegmentationSet, config: Any
) -> str:
    if weights is None:
        return "none: random weights (He et al., 2015)"
    return load_initial(network, weights, images.classes, new_classifier=config.MODEL.NEW_CLASSIFIER)

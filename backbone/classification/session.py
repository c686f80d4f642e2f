"""From a config to a trained and tested classifier in a run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..common.errors import DataError
from ..engine import checkpoint, distributed
from ..engine.progress import duration
from ..engine.record import LOGGER, start_logging
from ..engine.scale import scale_schedule
from ..engine.schedule import Plateau, WarmUp, WarmUpByError
from ..engine.session import Request, checkpoint_to_resume, launch, open_folder, train_task
from ..engine.solver import make_schedule
from ..networks import Backbone
from ..weights import WeightsFile
from .data import LabelledImages, open_sets
from .data.augment import normalise
from .networks import WEIGHT_KEYS, Trained, build, classes_of, fit_weights, load_into, mean_image, settle_classes
from .optimizer import make_optimizer
from .plan import plan
from .results import BACKBONE, TABLE, report, write_backbone
from .task import ClassificationTask, test_networks

log = logging.getLogger(LOGGER)
# Keys of pretraining that a resumed run may have otherwise.
FREE_KEYS = {
    "PAPER.ROWS",
    "DATA.ROOT",
    "DATA.MAX_BAD_IMAGES",
    "TEST.BATCH_SIZE",
    "TEST.FINAL_PROTOCOLS",
    "TEST.DENSE_SIDES",
}
# What pretraining writes into a run folder.
RUN_FILES = (TABLE, BACKBONE)


def run(request: Request, setup: distributed.Launch) -> None:
    """Train (or test) in all processes of `setup`.

    Raises:
        UserError: something in the request, the data or the machine is wrong; nothing was changed.
    """
    launch(run_process, request, setup, "a trained classifier")


def run_process(request: Request) -> None:
    """Run one process of a training or a test."""
    began = time.monotonic()
    config = request.config
    start_logging(request.folder if distributed.is_main() else None, quiet=not distributed.is_main())
    # All processes build the same network; later each draws for itself.
    checkpoint.seed_everything(config.SEED)
    if config.MODEL.DEVICE == "cuda":
        # Images of a few sizes alone: the fastest convolutions are worth finding.
        torch.backends.cudnn.benchmark = True
    trained = classes_of(config.MODEL.WEIGHTS) if request.eval_only else []
    train_set, test_set = open_sets(config, training=not request.eval_only, classes=trained)
    config = settle_classes(config, test_set.classes, set(request.given))
    if request.eval_only:
        test_only(config, test_set, request, began)
        return
    config, notes = scale_schedule(config, request.given)
    train(config, train_set, test_set, request, notes, began)


def test_only(config: Any, images: LabelledImages, request: Request, began: float) -> None:
    """Test MODEL.WEIGHTS, alone or in an ensemble with MODEL.ENSEMBLE, and write the results."""
    networks, prepare, lines = [], [], []
    for path in (config.MODEL.WEIGHTS, *config.MODEL.ENSEMBLE):
        own, file, _ = fit_weights(config, path, request.given, images=False)
        network = build(own)
        trained = load_into(network, file)
        _check_classes(trained, images, path)
        networks.append(network.eval())
        prepare.append(prepare_for(trained, config))
        lines.append(f"{path}: {trained}")
    weights = "; ".join(lines) + (f" (ensemble of {len(lines)})" if len(lines) > 1 else "")
    processes = distributed.world_size()
    log.info(plan(networks[0], None, images, config, weights=weights, processes=processes, notes=[]))
    protocols = request.tests or config.TEST.FINAL_PROTOCOLS or (config.TEST.PROTOCOL,)
    results = test_networks(networks, prepare, images, config, protocols)
    if distributed.is_main():
        seconds = time.monotonic() - began
        files = [config.MODEL.WEIGHTS, *config.MODEL.ENSEMBLE]
        report(results, config, extra={"weights": files, "seconds": round(seconds, 1)})
        log.info("took %s", duration(seconds))


def _check_classes(trained: Trained, images: LabelledImages, path: str) -> None:
    if trained.classes and trained.classes != images.classes:
        raise DataError(
            f"{path}: was trained on {len(trained.classes)} classes ({', '.join(trained.classes[:3])}, ...), "
            f"the data has {len(images.classes)} ({', '.join(images.classes[:3])}, ...)"
        )


def prepare_for(trained: Trained, config: Any) -> Callable[[Tensor], Tensor]:
    """Return what turns RGB pixels 0..255 into the input that weights ask for; the config's where nothing is known."""
    layout = config.MODEL.CHANNELS_LAST
    known = trained.preprocessing
    numbers = known.converted(value_range=255) if known is not None else None
    order = numbers.channel_order if numbers else config.INPUT.FORMAT
    mean = numbers.mean if numbers else config.MODEL.PIXEL_MEAN
    std = numbers.std if numbers else config.MODEL.PIXEL_STD
    image = trained.mean_image

    def prepare(images: Tensor) -> Tensor:
        images = images.flip(1) if order == "BGR" else images
        return normalise(images, image if image is not None else mean, std, channels_last=layout)

    return prepare


def train(
    config: Any,
    train_set: LabelledImages,
    test_set: LabelledImages,
    request: Request,
    notes: list[str],
    began: float,
) -> None:
    """Train, with the tests on the way, and write results and the backbone file."""
    config, weights, adopted = _settle_weights(config, request)
    notes = [*adopted, *notes]
    saved, resumed = checkpoint_to_resume(request, config, FREE_KEYS)
    image = mean_image(train_set) if config.MODEL.MEAN_IMAGE else None
    network = build(config)
    network.train()
    first = f"resumed from {saved}" if saved else _first_weights(network, weights, test_set, config)
    task = ClassificationTask(network, train_set, test_set, config, image)
    processes = distributed.world_size()
    shown = plan(network, train_set, test_set, config, weights=first, processes=processes, notes=[*notes, *resumed])
    open_folder(request, config, shown, RUN_FILES)
    state = train_task(
        task,
        make_optimizer(network, config),
        config,
        best=f"{config.TEST.PROTOCOL}/top1_accuracy",
        saved=saved,
        schedule=schedule_of(config),
    )
    results = dict(state.results)
    wanted = request.tests or tuple(config.TEST.FINAL_PROTOCOLS)
    results.update(task.test_with([name for name in wanted if name not in results]))
    write_backbone(task, results, config)
    if distributed.is_main():
        seconds = time.monotonic() - began
        best = {"top1_error": 1 - state.best, "iteration": state.best_iteration} if state.best_iteration >= 0 else None
        extra = {"iteration": state.iteration, "best": best, "seconds": round(seconds, 1)}
        report(results, config, extra={**extra, "broken_images": len(task.source.broken.messages)})
        log.info("took %s", duration(seconds))


def _settle_weights(config: Any, request: Request) -> tuple[Any, WeightsFile | None, list[str]]:
    """Read MODEL.WEIGHTS and fit the config to them; a run that goes on keeps what it began with."""
    if request.resume and checkpoint.newest(request.folder) is not None:
        kept = {key: value for key, value in WEIGHT_KEYS.of_run(request.folder).items() if key not in request.given}
        return WEIGHT_KEYS.adopt(config, kept, str(request.folder), request.given)[0], None, []
    if not config.MODEL.WEIGHTS:
        return config, None, []
    return fit_weights(config, config.MODEL.WEIGHTS, request.given, images=True)


def _first_weights(network: Backbone, weights: WeightsFile | None, images: LabelledImages, config: Any) -> str:
    if weights is None:
        return "none: random weights (He et al., 2015)"
    anew = config.MODEL.NEW_CLASSIFIER
    trained = load_into(network, weights, new_classifier=anew)
    said = f"{config.MODEL.WEIGHTS}: {trained}"
    if anew:
        return f"{said}; the classifier begins anew"
    other = [pair for pair in zip(trained.classes, images.classes) if pair[0] != pair[1]]
    if other:
        said += f"; its class {other[0][0]!r} stands where the data has {other[0][1]!r}, MODEL.NEW_CLASSIFIER True "
        said += "trains a new classifier"
    return said


def schedule_of(config: Any) -> Any:
    """Return the schedule of SOLVER: fixed steps, cosine, on plateau, each behind a warm-up by error if asked for."""
    solver = config.SOLVER
    schedule: Any = make_schedule(config)
    if solver.LR_SCHEDULER_NAME == "Plateau":
        warm_up = WarmUp(solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.WARMUP_METHOD)
        metric = f"{config.TEST.PROTOCOL}/top1_error"
        schedule = Plateau(metric, solver.GAMMA, solver.PLATEAU_PATIENCE, warm_up=warm_up)
    if solver.WARMUP_ERROR:
        schedule = WarmUpByError(schedule, solver.WARMUP_FACTOR, solver.WARMUP_ERROR)
    return schedule

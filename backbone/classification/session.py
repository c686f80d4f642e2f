"""From the command line and a config to a trained and tested classifier in a run folder."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import Any

import torch

from ..common.errors import ConfigError, DataError
from ..engine import distributed
from ..engine.arguments import given_keys, overrides_of, request_of
from ..engine.defaults import reading_of
from ..engine.held_out import SPLIT_FILE, read_held_out, split_record
from ..engine.processes import Launch
from ..engine.record import LOGGER
from ..engine.results import BACKBONE, TABLE
from ..engine.schedule import Plateau, WarmUp, WarmUpByError
from ..engine.session import Request
from ..engine.solver import device_of, make_schedule
from ..engine.task_run import RANDOM, TaskRun, start
from ..networks import Backbone
from .config import PROTOCOLS, check_tests, default_config, load_config
from .data import LabelledImages, open_sets
from .data.own import own_data_keys
from .mistakes import Looker
from .networks import (
    WEIGHT_KEYS,
    Trained,
    build,
    classes_of,
    fit_weights,
    load_into,
    mean_image,
    prepare_for,
    resolve_classes,
)
from .optimizer import make_optimizer
from .plan import plan
from .results import CONFUSION, MISTAKES, report, write_classifier, write_mistakes
from .task import ClassificationTask, one_view, test_networks

log = logging.getLogger(LOGGER)
OWN_FLAGS = ("train", "val", "split", "train_images", "val_images")
# Keys of classification that a resumed run may have otherwise.
FREE_KEYS = {
    "PAPER.ROWS",
    "DATA.ROOT",
    "DATA.MAX_BAD_IMAGES",
    "TEST.BATCH_SIZE",
    "TEST.FINAL_PROTOCOLS",
    "TEST.DENSE_SIDES",
    "TEST.MISTAKES",
}


def make_request(arguments: Namespace, **more: Any) -> Request:
    """Return the request of tools/pretrain.py's arguments; `more` are fields that no argument has.

    Raises:
        ConfigError: config, overrides or flags do not fit together.
    """
    own = own_data_keys(*(getattr(arguments, name) for name in OWN_FLAGS))
    overrides = [*overrides_of(arguments, root_key="DATA.ROOT"), *own]
    if arguments.ensemble:
        if not arguments.eval_only:
            raise ConfigError("--ensemble is for --eval-only: it averages trained networks")
        overrides += ["MODEL.ENSEMBLE", tuple(arguments.ensemble)]
    config = load_config(arguments.config, overrides)
    if "MODEL.NEW_CLASSIFIER" in given_keys(arguments) and config.MODEL.NEW_CLASSIFIER and arguments.eval_only:
        raise ConfigError("MODEL.NEW_CLASSIFIER begins a training; --eval-only tests a classifier that is trained")
    tests = _protocols(arguments.protocol or [], config)
    # Not after the training, whose results would be lost.
    check_tests(config, tests, "--protocol")
    return request_of(arguments, config, tests=tests, **more)


def _protocols(names: list[str], config: object) -> tuple[str, ...]:
    if "all" not in names:
        return tuple(dict.fromkeys(names))
    # Images as small as CIFAR's are tested as they are, and no other way.
    return ("single",) if config.TEST.PROTOCOL == "single" else tuple(name for name in PROTOCOLS if name != "single")


def run(request: Request, setup: Launch) -> None:
    """Train (or test) in all processes of `setup`; see `start`."""
    start(ClassificationRun, request, setup)


class ClassificationRun(TaskRun):
    """See `TaskRun`. Several networks can be tested together."""

    task_name = "classification"
    trained = "a trained classifier"
    weight_keys = WEIGHT_KEYS
    free_keys = FREE_KEYS
    default_config = staticmethod(default_config)
    files = (TABLE, BACKBONE, SPLIT_FILE, CONFUSION, MISTAKES)

    def open(self) -> None:
        if self.config.MODEL.DEVICE == "cuda":
            # Images of a few sizes alone: the fastest convolutions are worth finding.
            torch.backends.cudnn.benchmark = True
        testing = self.request.eval_only
        model = self.config.MODEL
        graphs = model.CUDA_GRAPHS and not testing and torch.device(model.DEVICE).type == "cuda"
        if graphs and distributed.world_size() > 1:
            raise ConfigError("MODEL.CUDA_GRAPHS is for one process; several take MODEL.COMPILE True")
        known = classes_of(self.config.MODEL.WEIGHTS, self.config.MODEL.WEIGHTS_PART) if testing else []
        divided = self.request.resume and self.config.DATA.SPLIT
        held_out = read_held_out(self.request.folder) if divided else None
        self.train_set, self.test_set = open_sets(self.config, training=not testing, classes=known, held_out=held_out)
        self.config = resolve_classes(self.config, self.test_set.classes, set(self.request.given))
        if not testing:
            # A test resolves the weights of each of its networks.
            self.resolve_weights()
            self.train_set.reading = self.test_set.reading = reading_of(self.config)

    @property
    def best(self) -> str:
        return f"{self.config.TEST.PROTOCOL}/top1_accuracy"

    def best_figure(self, value: float) -> dict[str, float]:
        return {"top1_error": 1 - value}

    @property
    def beside(self) -> dict[str, Any]:
        share = self.config.DATA.SPLIT
        if not share:
            return {}
        return {SPLIT_FILE: split_record(self.train_set.names(), self.test_set.held_out, share, self.config.SEED)}

    def read_weights(self):
        return fit_weights(self.config, self.config.MODEL.WEIGHTS, self.request.given, images=True)

    def build(self) -> Backbone:
        return build(self.config)

    def load_first(self, network: Backbone) -> str:
        if self.weights is None and self.config.MODEL.FREEZE_AT:
            frozen = self.config.MODEL.FREEZE_AT
            raise ConfigError(f"MODEL.FREEZE_AT {frozen} would freeze random weights; --weights gives trained ones")
        if self.weights is None:
            return RANDOM
        anew = self.config.MODEL.NEW_CLASSIFIER
        trained = load_into(network, self.weights, new_classifier=anew)
        text = f"{self.config.MODEL.WEIGHTS}: {trained}"
        other = [pair for pair in zip(trained.classes, self.test_set.classes) if pair[0] != pair[1]]
        if other and not anew:
            text += f"; its class {other[0][0]!r} stands where the data has {other[0][1]!r}, MODEL.NEW_CLASSIFIER True "
            text += "trains a new classifier"
        return text

    def make_task(self, network: Backbone) -> ClassificationTask:
        image = mean_image(self.train_set) if self.config.MODEL.MEAN_IMAGE else None
        return ClassificationTask(network, self.train_set, self.test_set, self.config, image)

    def make_optimizer(self, network: Backbone) -> torch.optim.Optimizer:
        return make_optimizer(network, self.config)

    def make_schedule(self) -> Any:
        return schedule_of(self.config)

    def plan(self, network: Backbone, weights: str, notes: list[str]) -> str:
        first = () if self.request.eval_only and self.wanted else (self.config.TEST.PROTOCOL,)
        sets, protocols = (self.train_set, self.test_set), dict.fromkeys((*first, *self.wanted))
        return plan(network, *sets, self.config, weights=weights, notes=notes, protocols=list(protocols))

    @property
    def wanted(self) -> tuple[str, ...]:
        """The protocols of the last test; () for TEST.PROTOCOL alone."""
        return self.request.tests or tuple(self.config.TEST.FINAL_PROTOCOLS)

    def last_tests(self, task: ClassificationTask, results: dict[str, Any]) -> dict[str, Any]:
        return {**results, **task.test_with([name for name in self.wanted if name not in results])}

    def write_weights(self, task: ClassificationTask, results: dict[str, Any]) -> None:
        write_classifier(task, results, self.config)

    def report(self, task: ClassificationTask | None, results: dict[str, Any], extra: dict[str, Any]) -> None:
        network, prepare, errors = self.tested if task is None else (task.network(), task.prepare, task.errors)
        report(results, self.config, errors, extra=extra)
        protocol = self.config.TEST.PROTOCOL if self.config.TEST.PROTOCOL in errors else next(iter(errors), "")
        if protocol and self.config.TEST.MISTAKES:
            looker = Looker(network, prepare, one_view(self.config), device_of(self.config))
            write_mistakes(errors[protocol], self.test_set, looker, self.config)

    def test(self) -> None:
        """Test MODEL.WEIGHTS, alone or in an ensemble with MODEL.ENSEMBLE, and write the results."""
        config, images = self.config, self.test_set
        files = [config.MODEL.WEIGHTS, *config.MODEL.ENSEMBLE]
        networks, prepare, lines = [], [], []
        for path in files:
            own, weights, _ = fit_weights(config, path, self.request.given, images=False)
            reading = reading_of(own)
            if networks and reading != images.reading:
                raise ConfigError(f"{path}: is for other images than {files[0]}: {reading}, not {images.reading}")
            images.reading = reading
            network = build(own)
            trained = load_into(network, weights)
            _check_classes(trained, images, path)
            networks.append(network.eval())
            prepare.append(prepare_for(trained, config))
            lines.append(f"{path}: {trained}")
        text = "; ".join(lines) + (f" (ensemble of {len(lines)})" if len(lines) > 1 else "")
        log.info(self.plan(networks[0], text, self.notes))
        errors = test_networks(networks, prepare, images, config, self.wanted or (config.TEST.PROTOCOL,))
        self.tested = (networks[0], prepare[0], errors)
        self.finish(None, {name: of.figures() for name, of in errors.items()}, {"weights": files})


def _check_classes(trained: Trained, images: LabelledImages, path: str) -> None:
    if trained.classes and trained.classes != images.classes:
        raise DataError(
            f"{path}: was trained on {len(trained.classes)} classes ({', '.join(trained.classes[:3])}, ...), "
            f"the data has {len(images.classes)} ({', '.join(images.classes[:3])}, ...)"
        )


def schedule_of(config: Any) -> Any:
    """Return the schedule of SOLVER: fixed steps, cosine, on plateau, each behind a warm-up by error if asked for."""
    solver = config.SOLVER
    schedule: Any = make_schedule(config)
    if solver.LR_SCHEDULER_NAME == "Plateau":
        warm_up = WarmUp(solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.WARMUP_METHOD)
        metric = f"{config.TEST.PROTOCOL}/top1_error"
        schedule = Plateau(
            metric, solver.GAMMA, solver.PLATEAU_PATIENCE, solver.PLATEAU_MIN_EVALUATIONS, warm_up=warm_up
        )
    if solver.WARMUP_ERROR:
        schedule = WarmUpByError(schedule, solver.WARMUP_FACTOR, solver.WARMUP_ERROR)
    return schedule

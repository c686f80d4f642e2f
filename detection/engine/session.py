"""From the command line and a config to a trained and evaluated detector in a run folder."""

from __future__ import annotations

from argparse import Namespace
from functools import cached_property
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

import detection
from backbone import ConfigError
from backbone.engine.arguments import overrides_of, request_of
from backbone.engine.class_weights import check_class_weights
from backbone.engine.held_out import SPLIT_FILE, read_held_out, split_record
from backbone.engine.processes import Launch
from backbone.engine.record import CONFIG
from backbone.engine.session import Request
from backbone.engine.starting_weights import StartingWeights
from backbone.engine.task_run import TaskRun, start

from ..config import default_config, load_config
from ..config.keys import idle_keys, unread_keys
from ..inference.methods import check_ensemble
from ..modeling.build import build
from ..weights.foreign import check_kind
from ..weights.keys import WEIGHT_KEYS
from ..weights.load import open_starting_weights
from .alternating.run import train_alternating
from .datasets import Sets, load_sets
from .fitting import fit_to_data
from .folder import FREE_KEYS, RUN_FILES
from .model import fit_classes, fit_keypoints, load_trained, make_optimizer, prepare_for_training
from .own_sets import own_data_keys
from .plan import images_of_an_epoch, plan
from .results import report
from .scoring import best_of
from .task import DetectionTask

OWN_FLAGS = ("train", "val", "split", "train_images", "val_images", "train_json", "val_json")


def make_request(arguments: Namespace, **more: Any) -> Request:
    """Return the request of tools/train_net.py's arguments; `more` are fields that no argument has.

    Raises:
        ConfigError: config, overrides or flags do not fit together.
    """
    detection.register()
    overrides = [
        *overrides_of(arguments, root_key="DATASETS.ROOT"),
        *own_data_keys(**{name: getattr(arguments, name) for name in OWN_FLAGS}),
    ]
    if arguments.data_cache is not None:
        overrides += ["DATASETS.CACHE", arguments.data_cache]
    if arguments.scheme is not None:
        overrides += ["SOLVER.SCHEME", arguments.scheme]
    return request_of(arguments, load_config(arguments.config, overrides), **more)


def run(request: Request, setup: Launch) -> None:
    """Train (or evaluate) in all processes of `setup`; see `start`."""
    start(DetectionRun, request, setup)


class DetectionRun(TaskRun):
    """See `TaskRun`. With SOLVER.SCHEME alternating, it trains in four steps."""

    task_name = "detection"
    trained = "the checkpoint of a trained detector"
    weight_keys = WEIGHT_KEYS
    free_keys = FREE_KEYS
    default_config = staticmethod(default_config)
    files = RUN_FILES

    def open(self) -> None:
        # Forked or spawned, each process has its own registries.
        detection.register()
        set_backends(self.config)
        check_ensemble(self.config)
        self.sets, given = self.load_sets(), set(self.request.given)
        if not self.request.eval_only:
            self.best = best_of(self.sets.test, self.config.TEST.BEST)
            folder = self.request.folder if self.request.resume else None
            self.config, fitted = fit_to_data(self.config, self.sets.train, given, folder)
            self.notes += fitted
        self.config = fit_keypoints(fit_classes(self.config, self.sets.classes, given), self.sets.any, given)
        check_class_weights(self.config, "config", self.sets.classes)
        self.resolve_weights()
        self.notes += idle_keys(self.config, self.request.given)
        self.notes += unread_keys(self.config, self.request.given, default_config())

    def load_sets(self) -> Sets:
        """Load what the config names; classes and split of data of one's own are those of the run or its weights."""
        custom, request = self.config.DATASETS.CUSTOM, self.request
        learned = None
        if request.eval_only and custom.VAL and not custom.CLASSES:
            learned = self.opened_weights.classes
        held_out = read_held_out(request.folder) if request.resume and custom.SPLIT else None
        return load_sets(self.config, training=not request.eval_only, classes=learned, held_out=held_out)

    @property
    def beside(self) -> dict[str, Any]:
        share = self.config.DATASETS.CUSTOM.SPLIT
        if not share:
            return {}
        train, val = self.sets.train, self.sets.test[0].images
        return {SPLIT_FILE: split_record(train.files, val.files, share, self.config.SEED)}

    def has_begun(self) -> bool:
        if self.config.SOLVER.SCHEME == "alternating":
            # Its checkpoints lie in the folders of its steps, which read the weights where they need them.
            return (self.request.folder / CONFIG).is_file()
        return super().has_begun()

    @property
    def images_of_an_epoch(self) -> int:
        return images_of_an_epoch(self.sets.train, self.config)

    @property
    def classes(self) -> list[str]:
        return self.sets.classes

    @cached_property
    def opened_weights(self) -> StartingWeights:
        """What MODEL.WEIGHTS holds. The sets may ask for its classes before it is loaded; it is read once."""
        return open_starting_weights(self.config.MODEL.WEIGHTS, self.config.MODEL.WEIGHTS_PART)

    def read_weights(self):
        weights = self.opened_weights
        given = self.request.given
        check_kind(weights, self.config)
        wants = weights.wanted(given)
        config, notes = WEIGHT_KEYS.resolve(self.config, wants, weights.source, given, assumed=weights.assumed)
        return config, weights, [*notes, *weights.notes]

    def build(self) -> nn.Module:
        return build(self.config)

    def load_first(self, network: nn.Module) -> str:
        return prepare_for_training(network, self.config, self.sets.train, self.weights)

    def load_trained(self, network: nn.Module) -> str:
        return load_trained(network, self.weights, self.sets.classes)

    def make_task(self, network: nn.Module) -> DetectionTask:
        return DetectionTask(network, self.sets, self.config, transforms=self.request.transforms)

    def make_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return make_optimizer(self.config, network)

    def plan(self, network: nn.Module, weights: str, notes: list[str]) -> str:
        return plan(network, self.sets, self.config, weights=weights, notes=notes)

    def train(self) -> None:
        """See `TaskRun.train`."""
        if self.config.SOLVER.SCHEME == "alternating" and self.request.draw is None:
            if self.request.sweep is not None:
                raise ConfigError("a rate is searched for one training; leave --scheme alternating out")
            train_alternating(self.config, self.sets, self.weights, self.request, self.notes, self.began, self.beside)
        else:
            super().train()

    def report(self, task: DetectionTask, results: dict[str, Any], extra: dict[str, Any]) -> None:
        report(task, results, self.config, extra=extra)


def set_backends(config: CfgNode) -> None:
    """Obey CUDNN_BENCHMARK, and FLOAT32_PRECISION, which the config of detectron2's main branch has."""
    torch.backends.cudnn.benchmark = config.CUDNN_BENCHMARK
    precision = config.get("FLOAT32_PRECISION", "")
    if precision:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"

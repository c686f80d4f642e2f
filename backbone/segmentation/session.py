"""From the command line and a config to a trained and tested segmentation network in a run folder."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, WeightsError
from ..engine.arguments import overrides_of, request_of
from ..engine.class_weights import check_class_weights
from ..engine.defaults import reading_of
from ..engine.held_out import SPLIT_FILE, check_share, read_held_out, split_record
from ..engine.processes import Launch
from ..engine.results import BACKBONE, PICTURES, TABLE, write_backbone
from ..engine.session import Request
from ..engine.task_run import RANDOM, TaskRun, start
from ..weights.zoos import suggestion
from .config import default_config, load_config
from .data import open_sets
from .data.check import check_set
from .data.own import has_part
from .evaluation import KIND
from .exported import Exported, ExportedNetwork, fit_exported, is_exported, open_exported
from .networks import SegmentationNetwork, build
from .optimizer import make_optimizer
from .plan import plan
from .projects import refuse_name
from .results import SHEET, report
from .task import SegmentationTask
from .weights import WEIGHT_KEYS, check_names, fit_weights, load_initial, load_whole, open_starting_weights

# Keys of segmentation that a resumed run may have otherwise.
FREE_KEYS = {
    *("DATA.ROOT", "DATA.MAX_BAD_IMAGES"),
    *("TEST.SCALES", "TEST.FLIP", "TEST.WINDOW", "TEST.WINDOW_STRIDE", "TEST.PICTURES"),
}


def make_request(arguments: Namespace) -> Request:
    """Return the request of tools/train_segmentation.py's arguments.

    Raises:
        ConfigError: config, overrides or flags do not fit together.
    """
    overrides = [*overrides_of(arguments, root_key="DATA.ROOT"), *own_data(arguments)]
    config = load_config(arguments.config, overrides)
    refuse_name(config.MODEL.WEIGHTS)
    files = {"predictions": arguments.save_predictions, "json": arguments.json}
    return request_of(arguments, config, **{name: Path(path) if path else None for name, path in files.items()})


def own_data(arguments: Namespace) -> list[object]:
    """Return KEY, VALUE, ... of the flags that name one's own data.

    Raises:
        ConfigError: a flag has no set that it belongs to.
    """
    train, val = arguments.train, arguments.val
    for part, path in (("train", train), ("val", val)):
        if getattr(arguments, f"{part}_images") is not None and path is None:
            raise ConfigError(f"--{part}-images belongs to --{part}, a COCO JSON file")
    if arguments.split is not None:
        check_share(arguments.split, train=train is not None, val=val is not None)
    if train is None and val is None:
        return []
    if train is None and not arguments.eval_only:
        raise ConfigError("--val: a training needs --train too; --eval-only tests --weights alone")
    there = train is not None and Path(train).expanduser().exists()
    if there and val is None and arguments.split is None and not has_part(Path(train), "val"):
        raise ConfigError(f"--train {train}: has no part to test on; give --val, or --split 0.1 to hold out a tenth")
    pairs = {
        "DATA.NAME": "own",
        "DATA.TRAIN": train,
        "DATA.VAL": val or train,
        "DATA.TRAIN_FOLDER": arguments.train_images,
        "DATA.VAL_FOLDER": arguments.val_images,
        "DATA.SPLIT": arguments.split,
    }
    return [part for key, value in pairs.items() if value is not None for part in (key, value)]


def run(request: Request, setup: Launch) -> None:
    """Train (or test) in all processes of `setup`; see `start`."""
    if not request.eval_only:
        check_batch(request.config, setup.world_size)
    start(SegmentationRun, request, setup)


def check_batch(config: Any, processes: int) -> None:
    """Raise ConfigError where the batch normalisation of a head would see one value a channel."""
    solver, model = config.SOLVER, config.MODEL
    alone = solver.IMS_PER_BATCH if model.NORM == "sync_bn" else solver.IMS_PER_BATCH // processes
    alone //= solver.ACCUMULATE
    if model.HEAD.NAME in ("deeplabv3", "pspnet") and alone < 2:
        raise ConfigError(
            f"MODEL.HEAD.NAME {model.HEAD.NAME} normalises image means over the batch: SOLVER.IMS_PER_BATCH must give "
            "each process 2 images or more (with MODEL.NORM sync_bn, all processes together) in each part of "
            "SOLVER.ACCUMULATE"
        )


class SegmentationRun(TaskRun):
    """See `TaskRun`."""

    task_name = "segmentation"
    trained = "a trained segmentation network"
    weight_keys = WEIGHT_KEYS
    free_keys = FREE_KEYS
    default_config = staticmethod(default_config)
    files = (TABLE, BACKBONE, PICTURES, SHEET, SPLIT_FILE)
    best = f"{KIND}/mIoU"

    def open(self) -> None:
        self.resolve_weights()
        testing = self.request.eval_only
        known = self.weights.classes if testing else ()
        divided = self.request.resume and self.config.DATA.SPLIT
        held_out = read_held_out(self.request.folder) if divided else None
        self.train_set, self.test_set = open_sets(self.config, training=not testing, classes=known, held_out=held_out)
        for images in filter(None, (self.train_set, self.test_set)):
            images.reading = reading_of(self.config)
        if not testing:
            check_class_weights(self.config, "config", self.train_set.classes)
            self.notes += check_set(self.train_set, self.config, training=True)
        self.notes += check_set(self.test_set, self.config, training=False)

    @property
    def beside(self) -> dict[str, Any]:
        share = self.config.DATA.SPLIT
        if not share:
            return {}
        return {SPLIT_FILE: split_record(self.train_set.names(), self.test_set.held_out, share, self.config.SEED)}

    def read_weights(self):
        if is_exported(self.config.MODEL.WEIGHTS):
            if not self.request.eval_only:
                raise WeightsError(f"{self.config.MODEL.WEIGHTS}: an exported network is tested, not trained")
            exported = open_exported(self.config.MODEL.WEIGHTS)
            return fit_exported(self.config, exported), exported, []
        weights = open_starting_weights(self.config.MODEL.WEIGHTS, self.config.MODEL.WEIGHTS_PART)
        given = self.request.given
        config, notes = fit_weights(self.config, weights, given, testing=self.request.eval_only)
        return config, weights, [*notes, *weights.notes]

    def build(self) -> SegmentationNetwork | ExportedNetwork:
        if isinstance(self.weights, Exported):
            return self.weights.network
        return build(self.config, len(self.test_set.classes))

    def load_first(self, network: SegmentationNetwork) -> str:
        if self.weights is None:
            name = suggestion(self.config.MODEL.NAME) if self.config.MODEL.NORM == "frozen_bn" else ""
            advice = f"; frozen BN is the identity, --weights {name} starts from a pretrained backbone"
            return RANDOM + (advice if name else "")
        classes, anew = self.test_set.classes, self.config.MODEL.NEW_CLASSIFIER
        return load_initial(network, self.weights, classes, new_classifier=anew)

    def load_trained(self, network: SegmentationNetwork) -> str:
        if isinstance(self.weights, Exported):
            check_names(self.weights.source, self.weights.classes, self.test_set.classes)
            return f"{self.weights.source}, run in {self.weights.runtime}"
        return load_whole(network, self.weights, self.test_set.classes)

    def make_task(self, network: SegmentationNetwork) -> SegmentationTask:
        sets = (self.train_set, self.test_set)
        return SegmentationTask(network, *sets, self.config, predictions=self.request.predictions)

    def make_optimizer(self, network: SegmentationNetwork):
        return make_optimizer(network, self.config)

    def plan(self, network: SegmentationNetwork, weights: str, notes: list[str]) -> str:
        return plan(network, self.train_set, self.test_set, self.config, weights=weights, notes=notes)

    def write_weights(self, task: SegmentationTask, results: dict[str, Any]) -> None:
        network = task.learned().backbone
        network.preprocessing = task.preprocessing
        write_backbone(network, self.config, {"trained_on": task.train.name})

    def report(self, task: SegmentationTask, results: dict[str, Any], extra: dict[str, Any]) -> None:
        report(task, self.config, extra=extra, json=self.request.json)

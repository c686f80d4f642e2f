"""From the command line and a config to a trained and tested localisation network in a run folder."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..classification.networks import PAPER_CLASSES
from ..classification.optimizer import make_optimizer
from ..common.files import write_text
from ..common.text import count, table
from ..engine import plan as page
from ..engine.arguments import overrides_of, request_of
from ..engine.processes import Launch
from ..engine.record import LOGGER
from ..engine.results import TABLE, say_where, write_results, write_table
from ..engine.session import Request
from ..engine.task_run import RANDOM, TaskRun, start
from .config import check_files, default_config, load_config
from .data import BoxedImages, open_sets
from .evaluation import KIND, submission
from .networks import LocalizationNetwork, build
from .task import PROPOSALS_FILE, LocalizationTask, open_others
from .weights import WEIGHT_KEYS, as_trained, load_initial, load_whole, open_starting_weights

log = logging.getLogger(LOGGER)
# Keys of localisation that a resumed run may have otherwise.
FREE_KEYS = {
    *("DATA.ROOT", "DATA.MAX_BAD_IMAGES", "PAPER.ROWS", "TEST.BATCH_SIZE", "TEST.CLASSIFIERS", "TEST.PROPOSERS"),
    *("TEST.ENSEMBLE", "TEST.VIEWS", "TEST.DENSE_SIDES", "TEST.CLASSES"),
}
SUBMISSION = "submission.csv"
NAMES = {
    "true_class_error": "error with the true class",
    "top1_error": "top-1 error",
    "top5_error": "top-5 error",
    "class_top5_error": "top-5 error of the classes alone",
}


def make_request(arguments: Namespace) -> Request:
    """Return the request of tools/train_localization.py's arguments.

    Raises:
        ConfigError: config, overrides or flags do not fit together.
    """
    config = load_config(arguments.config, overrides_of(arguments, root_key="DATA.ROOT"))
    check_files(config)
    return request_of(arguments, config)


def run(request: Request, setup: Launch) -> None:
    """Train (or test) in all processes of `setup`; see `start`."""
    start(LocalizationRun, request, setup)


class LocalizationRun(TaskRun):
    """See `TaskRun`."""

    task_name = "localisation"
    trained = "a trained localisation network"
    weight_keys = WEIGHT_KEYS
    free_keys = FREE_KEYS
    default_config = staticmethod(default_config)
    files = (TABLE, SUBMISSION, PROPOSALS_FILE)
    best = f"{KIND}/accuracy"

    def open(self) -> None:
        self.resolve_weights()
        self.train_set, self.test_set = open_sets(self.config, training=not self.request.eval_only)
        if self.config.PAPER.ROWS and len(self.classes) != PAPER_CLASSES["imagenet"]:
            # On other data a run is none of the paper's rows.
            other = self.config.clone()
            other.defrost()
            other.PAPER.ROWS = ()
            other.freeze()
            self.config = other

    def read_weights(self):
        weights = open_starting_weights(self.config.MODEL.WEIGHTS, self.config.MODEL.WEIGHTS_PART)
        config, given = self.config, self.request.given
        config, notes = WEIGHT_KEYS.resolve(config, weights.wants, weights.source, given, assumed=weights.assumed)
        if self.request.eval_only and weights.whole:
            config = as_trained(config, weights, config.MODEL.KIND, given)
        return config, weights, notes

    def build(self) -> LocalizationNetwork:
        return build(self.config, len(self.classes))

    def load_first(self, network: LocalizationNetwork) -> str:
        return RANDOM if self.weights is None else load_initial(network, self.weights, self.classes)

    def load_trained(self, network: LocalizationNetwork) -> str:
        return load_whole(network, self.weights, self.classes)

    def make_task(self, network: LocalizationNetwork) -> LocalizationTask:
        others, proposers = open_others(self.config, self.classes, testing=self.request.eval_only)
        return LocalizationTask(network, self.train_set, self.test_set, self.config, others, proposers)

    def make_optimizer(self, network: LocalizationNetwork):
        return make_optimizer(network, self.config)

    def best_figure(self, value: float) -> dict[str, float]:
        return {"error": 1 - value}

    def plan(self, network: LocalizationNetwork, weights: str, notes: list[str]) -> str:
        return plan(network, self.train_set, self.test_set, self.config, weights=weights, notes=notes)

    def report(self, task: LocalizationTask, results: dict[str, Any], extra: dict[str, Any]) -> None:
        config = self.config
        facts = {
            "network": config.MODEL.NAME,
            "kind": config.MODEL.KIND,
            "test_images": {task.test.name: len(task.test)},
        }
        left_out = [task.test.place(index) for index in sorted(task.left_out)]
        paper = [list(row) for row in config.PAPER.ROWS]
        write_results(config, {**results, **extra, **facts, "left_out": left_out, "paper": paper})
        if results:
            rows = [(name, f"{100 * results[KIND][key]:.2f}") for key, name in NAMES.items() if key in results[KIND]]
            write_table(config, table(rows, (f"{task.test.name}, {count(results[KIND]['images'], 'image')}", "%")))
        say_where(config, "" if results else "no boxes: no figures")
        if not task.test.has_truth and task.found:
            path = Path(config.OUTPUT_DIR) / SUBMISSION
            write_text(path, submission(task.found, [Path(name).stem for name in task.test.files.tolist()]))
            log.info("submission   %s (for the evaluation server)", path)


def plan(
    network: LocalizationNetwork,
    train: BoxedImages | None,
    test: BoxedImages,
    config: Any,
    *,
    weights: str,
    notes: list[str],
) -> str:
    """Return the plan: network, weights, data, batch, schedule, tests, device, precision and output folder."""
    model, how = config.MODEL, config.TEST
    anchors = f"{network.anchors} anchors at each position" if model.KIND == "rpn" else f"{model.PROPOSALS} regions"
    classes = count(len(test.classes), "class", "classes")
    view = "centre crop" if how.VIEWS == "1crop" else f"whole image at {', '.join(map(str, how.DENSE_SIDES))}"
    number = len(how.ENSEMBLE) + 1
    ensemble = f", ensemble of {number}" if number > 1 else ""
    of = "the true class" if how.CLASSES == "truth" else f"five classes of {count(len(how.CLASSIFIERS), 'classifier')}"
    rows = [
        ("network", f"{model.NAME}, {model.NORM}; {model.KIND}, {anchors}; {classes}; {page.trained(network)}"),
        *(("paper", f"Table {row[0]}, {row[1]}, {row[2]}: {NAMES[row[3]]} {row[4]:g} %") for row in config.PAPER.ROWS),
        ("weights", weights),
    ]
    if train is not None:
        rows.append(("train", _set(train)))
    rows.append(("test", f"{_set(test)}; {view}, {of}{ensemble}"))
    if train is not None:
        rows += [
            ("batch", f"{page.batch(config)}; {page.loaders(config)}"),
            (
                "schedule",
                f"{page.length(config, len(train))}; lr {config.SOLVER.BASE_LR:.4g}, {page.course(config.SOLVER)}",
            ),
        ]
        notes = [*page.schedule_notes(config, len(train)), *notes]
    return page.page(config, rows, notes)


def _set(images: BoxedImages) -> str:
    truth = f", {count(len(images.boxes), 'box', 'boxes')}" if images.has_truth else ", without boxes: no figures"
    return f"{images.name}: {count(len(images), 'image')}{truth}{images.note and f'; {images.note}'}"

"""A run of one task: config, data and weights come together, then it trains or tests into its run folder."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from ..common.waiting import duration
from . import checkpoint, distributed
from .card import write_card
from .curves import CurvesPage, write_curves
from .drawing import draw_batches
from .early_stopping import EarlyStopping
from .epochs import fit_epochs
from .extensions import import_modules
from .hooks import Hook
from .processes import Launch
from .rate_sweep import find_rate
from .record import LOGGER, start_logging
from .results import say_weights
from .resume import checkpoint_to_resume
from .scale import scale_schedule
from .session import Request, launch, open_folder, train_task
from .starting_weights import WeightKeys
from .state import best_figure
from .task import Schedule, Task
from .trial import trial_rows

log = logging.getLogger(LOGGER)
RANDOM = "none: random weights (He et al., 2015)"


class TaskRun(ABC):
    """A run in one process. A task's own class says what differs; what all tasks do alike stands here.

    Attributes:
        task_name: "detection", "classification", ..., for people.
        trained: what --weights must be for an evaluation, in words.
        weight_keys: the config's keys that belong to weights.
        free_keys: keys that a resumed run may have otherwise, beside those of `resume.FREE_KEYS`.
        default_config: returns the task's config that nobody has set anything in.
        files: patterns of what the run writes into its folder, beside `session.RUN_FILES`.
        best: "kind/metric" of the evaluation by which the best weights are chosen.
        config: as it will run; what data, weights and batch ask for is set on the way.
        train_set, test_set: what `open` has opened; a run of another form says itself what follows from its sets.
        weights: what MODEL.WEIGHTS holds; None without any, or where a checkpoint takes their place.
        notes: lines for the plan.
    """

    task_name: ClassVar[str]
    trained: ClassVar[str]
    weight_keys: ClassVar[WeightKeys]
    free_keys: ClassVar[Collection[str]] = frozenset()
    default_config: ClassVar[Callable[[], Any]]
    files: ClassVar[Collection[str]] = ()
    best: str
    train_set: Any
    test_set: Any

    def __init__(self, request: Request) -> None:
        self.began = time.monotonic()
        self.request = request
        self.config = request.config
        self.weights: Any = None
        self.notes: list[str] = []

    # -- what differs

    @abstractmethod
    def open(self) -> None:
        """Open data and weights, check them, and set the config to what they ask for."""

    @property
    def classes(self) -> Sequence[str]:
        """The classes of the open sets, in order."""
        return self.test_set.classes

    @property
    def images_of_an_epoch(self) -> int:
        """How many images one pass over the training set has."""
        return len(self.train_set)

    @abstractmethod
    def read_weights(self) -> tuple[Any, Any, list[str]]:
        """Return the config as MODEL.WEIGHTS ask for it, the weights, and what was set, a line each."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new network on its device."""

    @abstractmethod
    def load_first(self, network: nn.Module) -> str:
        """Load what training starts from; return what it was, in words."""

    def load_trained(self, network: nn.Module) -> str:
        """Load the network that is tested; return what it was, in words. A run with a `test` of its own needs none."""
        raise NotImplementedError

    @abstractmethod
    def make_task(self, network: nn.Module) -> Task:
        """Return the task of the network and the open sets."""

    @abstractmethod
    def make_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of SOLVER."""

    @abstractmethod
    def plan(self, network: nn.Module, weights: str, notes: list[str]) -> str:
        """Return what the run is about to do, on one page."""

    @abstractmethod
    def report(self, task: Any, results: dict[str, Any], extra: dict[str, Any]) -> None:
        """Write the results and say where they are; in the main process. `extra` goes into results.json."""

    def make_schedule(self) -> Schedule | None:
        """Return the learning rate's schedule; None for the one of SOLVER."""
        return None

    def last_tests(self, task: Any, results: dict[str, Any]) -> dict[str, Any]:
        """Return the results of the last evaluation, and of tests that are made at the end alone. In every process."""
        return results

    def write_weights(self, task: Any, results: dict[str, Any]) -> None:  # noqa: B027 (optional)
        """Write weights in another form than a checkpoint; in the main process."""

    def best_figure(self, value: float) -> dict[str, float]:
        """Return the best value of `best`, as `State` has it, by the name that results.json has for it."""
        return best_figure(self.best, value)

    def has_begun(self) -> bool:
        """Whether the folder holds what --resume goes on from."""
        return checkpoint.newest(self.request.folder) is not None

    @property
    def beside(self) -> dict[str, Any]:
        """The values of JSON files that lie beside the config in the run folder, by their names."""
        return {}

    # -- what all do

    def run(self) -> None:
        """Train or test.

        Raises:
            UserError: something in the request, the data or the machine is wrong.
        """
        main = distributed.is_main()
        start_logging(self.request.folder if main and not self.request.keeps_nothing else None, quiet=not main)
        # A process that was started anew has not what the first one has imported.
        import_modules(self.request.imports)
        # All processes build the same network; later each draws for itself.
        checkpoint.seed_everything(self.config.SEED)
        self.open()
        if self.request.eval_only:
            self.test()
            return
        self.config, scaled = scale_schedule(self.config, self.request.given)
        self.notes += scaled
        self.config, fitted = fit_epochs(self.config, lambda: self.images_of_an_epoch, self.request.given)
        self.notes += fitted
        self.train()

    def resolve_weights(self) -> None:
        """Read MODEL.WEIGHTS and fit the config to them; a run that goes on keeps what it began with."""
        request, keys = self.request, self.weight_keys
        if request.resume and self.has_begun():
            kept = {key: value for key, value in keys.of_run(request.folder).items() if key not in request.given}
            self.config = keys.resolve(self.config, kept, str(request.folder), request.given)[0]
        elif self.config.MODEL.WEIGHTS:
            self.config, self.weights, notes = self.read_weights()
            self.notes += notes

    def test(self) -> None:
        """Test MODEL.WEIGHTS and write the results."""
        network = self.build()
        text = self.load_trained(network)
        log.info(self.plan(network, text, self.notes))
        task = self.make_task(network.eval())
        self.finish(task, task.evaluate(), {"weights": self.config.MODEL.WEIGHTS})

    def train(self) -> None:
        """Train, with the tests on the way, and write the results."""
        defaults = self.default_config()
        saved, resumed = checkpoint_to_resume(self.request, self.config, self.free_keys, self.classes, defaults)
        network = self.build()
        network.train()
        first = f"resumed from {saved}" if saved else self.load_first(network)
        task = self.make_task(network)
        if self.request.draw is not None:
            draw_batches(task, self.request.draw, self.config.SEED)
            return
        shown = self.plan(network, first, [*self.notes, *resumed])
        optimizer, schedule = self.make_optimizer(network), self.make_schedule()
        if self.request.plan_only:
            log.info(shown)
            if self.request.sweep is not None:
                find_rate(task, optimizer, self.config, self.request.sweep, self.request.folder)
                return
            log.info("  %-10s a few steps", "timing")
            rows = trial_rows(task, optimizer, schedule, self.config)
            log.info("\n".join(f"  {'expected':<10} {row}" for row in rows))
            return
        open_folder(self.request, self.config, shown, self.files, self.beside)
        hooks = run_hooks(self.request, self.config)
        state = train_task(task, optimizer, self.config, best=self.best, saved=saved, schedule=schedule, hooks=hooks)
        results = self.last_tests(task, state.results)
        if distributed.is_main():
            self.write_weights(task, results)
            say_weights(self.request.folder, state, self.best, self.config.SOLVER.EMA_DECAY)
        best = None
        if state.best_iteration >= 0:
            best = {**self.best_figure(state.best), "iteration": state.best_iteration}
        broken = len(task.broken.messages)
        stopped = {"stopped": state.stopped} if state.stopped else {}
        self.finish(task, results, {"iteration": state.iteration, **stopped, "best": best, "broken_images": broken})

    def finish(self, task: Any, results: dict[str, Any], extra: dict[str, Any]) -> None:
        """Report in the main process, and say how long the run took."""
        if distributed.is_main():
            seconds = time.monotonic() - self.began
            self.report(task, results, {**extra, "seconds": round(seconds, 1)})
            if not self.request.eval_only:
                write_curves(self.request.folder)
                write_card(self.request.folder, self.task_name, self.classes)
            log.info("took %s", duration(seconds))


def run_hooks(request: Request, config: Any) -> list[Hook]:
    """Return the hooks of a training: the request's, and those that every run has."""
    stopping = [EarlyStopping(config.TEST.PATIENCE)] if config.TEST.PATIENCE else []
    return [*request.all_hooks(), CurvesPage(), *stopping]


def start(kind: type[TaskRun], request: Request, setup: Launch) -> None:
    """Run in all processes of `setup`.

    Raises:
        UserError: something in the request, the data or the machine is wrong; nothing was changed.
    """
    launch(partial(_run_process, kind), request, setup, kind.trained)


def _run_process(kind: type[TaskRun], request: Request) -> None:
    kind(request).run()

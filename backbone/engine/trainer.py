"""The training loop that detectors and pretraining share.

A step is a function of the weights, the optimizer's state, the random generators and the step's number; all four are in
a checkpoint. So a run that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import RunError
from . import checkpoint, distributed
from .averages import REMEDIES, Averages, diverged
from .progress import Progress, Speed
from .record import LOGGER, LOSS, Events, MetricsFile
from .signals import EndRequest, ending
from .task import Schedule, Task

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Settings:
    """How a run goes.

    Attributes:
        batch_size: images a step over all processes.
        amp: None for float32, else "bfloat16" or "float16".
        best: "kind/metric" of the evaluation by which the best weights are chosen; higher is better.
        config: the whole config as YAML text; it goes into every checkpoint.
        remedies: what may keep a loss finite, for the message where one is not.
    """

    folder: Path
    device: torch.device
    max_iter: int
    batch_size: int
    log_period: int = 20
    checkpoint_period: int = 0
    eval_period: int = 0
    keep: int = 2
    amp: str | None = None
    best: str = "bbox/AP"
    config: str = ""
    remedies: str = REMEDIES


@dataclass
class State:
    """Where a run stands."""

    iteration: int = 0
    best: float = -math.inf
    best_iteration: int = -1
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluation_due: bool = False
    finished: bool = False


class Trainer:
    """Runs a Task. Build it in every process, then call `train`."""

    def __init__(self, task: Task, optimizer: torch.optim.Optimizer, schedule: Schedule, settings: Settings) -> None:
        self.task = task
        self.optimizer = optimizer
        self.schedule = schedule
        self.settings = settings
        self.state = State()
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        device = settings.device
        self.model = distributed.wrap(task.model, device)
        self.dtype = getattr(torch, settings.amp) if settings.amp else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "float16")
        self._end = EndRequest()
        self._in_evaluation = False

    # -- checkpoints

    def content(self) -> dict[str, Any]:
        """Return all that `resume` needs. A collective call: every process takes part."""
        return {
            **self.weights(),
            "model": self.task.model.state_dict(),
            "task": self.task.state_dict(),
            "schedule": getattr(self.schedule, "state_dict", dict)(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": distributed.gather(checkpoint.rng_state()),
            "best": [self.state.best, self.state.best_iteration],
            "evaluation_due": self._due(self.settings.eval_period),
            "finished": self.state.finished,
        }

    def weights(self) -> dict[str, Any]:
        """Return what a file of weights holds, without what resuming needs: model (the state dict of what was learned,
        averaged where the run averages), iteration (steps done), config (YAML text) and metadata.
        """
        return {
            "model": self.task.weights(),
            "iteration": self.state.iteration,
            "config": self.settings.config,
            "metadata": self.task.metadata(),
        }

    def save(self) -> None:
        """Write the numbered checkpoint of this step."""
        content = self.content()
        if distributed.is_main():
            path = checkpoint.save_numbered(self.settings.folder, self.state.iteration, content, self.settings.keep)
            log.info("checkpoint %s", path.name, extra={"file_only": True})
        distributed.barrier()

    def resume(self, path: Path) -> None:
        """Go on from a numbered checkpoint.

        Raises:
            WeightsError: it cannot be read.
            RunError: it is not of this model, or of another number of processes.
        """
        content = checkpoint.load(path)
        missing = [
            key for key in ("optimizer", "scaler", "rng", "best", "iteration", "evaluation_due") if key not in content
        ]
        if missing:
            raise RunError(f"{path}: holds weights only, a run cannot be resumed from it")
        try:
            self.task.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.task.load_state_dict(content.get("task", {}))
            self._resume_schedule(content.get("schedule") or {})
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: not a checkpoint of this model: {str(error).splitlines()[0]}") from None
        if content["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        elif self.scaler.is_enabled():
            log.warning("the run had no loss scale before (SOLVER.AMP with float16): it begins with the first one")
        self.state = State(content["iteration"], *content["best"], evaluation_due=content["evaluation_due"])
        self.state.finished = content.get("finished", True)
        if self.state.iteration < self.settings.max_iter and self.state.finished:
            self._go_on_after_the_end()
        states = content["rng"]
        if len(states) == distributed.world_size():
            checkpoint.set_rng_state(states[distributed.rank()])
        else:
            log.warning(
                "the checkpoint is of %d processes, now %d run: random draws differ from here on",
                len(states),
                distributed.world_size(),
            )

    def _go_on_after_the_end(self) -> None:
        """Take back what the end of a shorter run did: the run goes on as one that was as long from the beginning."""
        state = self.state
        self.task.unfinish()
        state.finished = False
        state.evaluation_due = self._due(self.settings.eval_period)
        best = self.settings.folder / checkpoint.BEST
        if best.is_file() and checkpoint.load(best).get("iteration", -1) > state.best_iteration:
            # The weights of that end have replaced the best ones of before.
            state.best, state.best_iteration = -math.inf, -1

    def _resume_schedule(self, state: dict[str, Any]) -> None:
        """Take back what the schedule has seen of the run, if it is of the same kind."""
        own = getattr(self.schedule, "state_dict", dict)()
        # A checkpoint of an older release may lack what a schedule remembers today.
        if state and state.keys() <= own.keys():
            self.schedule.load_state_dict(state)
        elif own:
            log.warning("the run had another learning-rate schedule before: this one has seen nothing of it yet")

    # -- the loop

    def train(self) -> State:
        """Train up to `max_iter`, with log lines, evaluations and checkpoints on the way.

        Raises:
            RunError: a loss is not finite, or a checkpoint cannot be written.
            SystemExit: SIGTERM or SIGUSR1 came; a checkpoint was written first.
            KeyboardInterrupt: Ctrl-C came; likewise.
        """
        settings, state = self.settings, self.state
        main = distributed.is_main()
        done, evaluated = state.iteration, not state.evaluation_due
        metrics = MetricsFile(settings.folder, after=done, evaluated=evaluated) if main else None
        events = Events(settings.folder, after=done) if main else None
        progress = Progress(start=state.iteration, total=settings.max_iter, visible=main)
        try:
            with self._end.listening(now=self._at_signal, watched=distributed.world_size() > 1):
                if state.iteration == settings.max_iter and not state.finished:
                    # A signal came in the last step.
                    self._finish()
                    self.save()
                if state.evaluation_due:
                    self._evaluate(metrics, events)
                self._loop(metrics, events, progress)
        finally:
            progress.close()
            if events is not None:
                events.close()
        if main:
            checkpoint.save(settings.folder / checkpoint.FINAL, self.weights())
        return state

    def _loop(self, metrics: MetricsFile | None, events: Events | None, progress: Progress) -> None:
        settings, state = self.settings, self.state
        speed, averages, first = Speed(settings.batch_size), Averages(settings.remedies), state.iteration
        self.task.model.train()
        batches = iter(self.task.batches(first, settings.max_iter))
        while state.iteration < settings.max_iter:
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            if events is not None and state.iteration == first:
                for name, picture in self.task.pictures(batch).items():
                    events.picture(name, picture, state.iteration)
            rate = self._set_rates()
            averages.add(*self.step(batch))
            state.iteration += 1
            due = self._due(settings.log_period)
            if due:
                averages.take(state.iteration)
            speed.add(time.perf_counter() - began, waited)
            if due:
                self._report(progress, speed, metrics, events, averages, rate)
            progress.step(speed, state.iteration, averages.losses, rate)
            if signum := distributed.greatest(self._end.signum):
                # Saving may take its time.
                self._end.agreed()
                self.save()
                self._leave(signum)
            if state.iteration == settings.max_iter:
                self._finish()
            # The checkpoint comes first: a run that is killed in its evaluation begins again with that evaluation.
            if self._due(settings.checkpoint_period) or self._due(settings.eval_period):
                averages.check(state.iteration)
                self.save()
            if self._due(settings.eval_period):
                self._evaluate(metrics, events)

    def _finish(self) -> None:
        self.task.finish()
        self.state.finished = True

    def _due(self, period: int) -> bool:
        done = self.state.iteration
        return done == self.settings.max_iter or (period > 0 and done % period == 0)

    def _set_rates(self) -> float:
        multiplier = self.schedule.multiplier(self.state.iteration)
        for group, base in zip(self.optimizer.param_groups, self.base_rates):
            group["lr"] = base * multiplier
        return self.optimizer.param_groups[0]["lr"]

    def step(self, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take one step; return its losses and metrics, on the device."""
        # Before the forward pass, whose peak of memory the last step's gradients would lift.
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with self.autocast():
                losses = self.task.losses(self.model, batch, self.state.iteration)
        except FloatingPointError:
            # detectron2 raises it where region proposals are not finite.
            raise diverged("a predicted box or score", self.state.iteration, self.settings.remedies) from None
        self.scaler.scale(sum(losses.values())).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.task.stepped(self.state.iteration + 1)
        step_metrics = self.task.step_metrics()
        if getattr(self.schedule, "watching", False):
            self.schedule.observe({name: float(distributed.mean(value)) for name, value in step_metrics.items()})
        return {name: loss.detach() for name, loss in losses.items()}, step_metrics

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context of the forward pass."""
        return torch.autocast(self.settings.device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def _report(self, progress, speed, metrics, events, averages, rate) -> None:
        if not distributed.is_main():
            return
        progress.report(speed, self.state.iteration, averages.losses, rate)
        scalars = {
            LOSS: sum(averages.losses.values()),
            **averages.last,
            "lr": rate,
            "images_per_second": speed.images_per_second,
            "data_share": speed.data_share,
        }
        metrics.write({"iteration": self.state.iteration, **{name: float(value) for name, value in scalars.items()}})
        events.scalars({f"train/{name}": value for name, value in scalars.items()}, self.state.iteration)

    def _evaluate(self, metrics: MetricsFile | None, events: Events | None) -> None:
        generators = checkpoint.rng_state()
        self._in_evaluation = True
        self._at_signal()
        self.task.model.eval()
        distributed.share_buffers(self.task.model)
        results = self.task.evaluate(final=self.state.iteration == self.settings.max_iter)
        self.task.model.train()
        self._in_evaluation = False
        checkpoint.set_rng_state(generators)
        self.state.results = results
        if hasattr(self.schedule, "evaluated"):
            self.schedule.evaluated(results)
        if not results:
            return
        flat = {f"{kind}/{name}": value for kind, values in results.items() for name, value in values.items()}
        flat = {name: value for name, value in flat.items() if isinstance(value, (int, float))}
        value = flat.get(self.settings.best)
        better = value is not None and value > self.state.best
        if better:
            self.state.best, self.state.best_iteration = float(value), self.state.iteration
        if distributed.is_main():
            metrics.write({"iteration": self.state.iteration, **flat})
            events.scalars(flat, self.state.iteration)
            for name, picture in self.task.evaluation_pictures().items():
                events.picture(name, picture, self.state.iteration)
            if better:
                checkpoint.save(self.settings.folder / checkpoint.BEST, self.weights())

    def _at_signal(self) -> None:
        """An evaluation is left at once: it begins with a checkpoint."""
        if self._in_evaluation and self._end.signum:
            self._leave(self._end.signum)

    def _leave(self, signum: int) -> None:
        self._end.agreed()
        name, done = signal.Signals(signum).name, self.state.iteration
        log.info("%s: checkpoint written after %d iterations; --resume goes on from it", name, done)
        raise ending(signum)

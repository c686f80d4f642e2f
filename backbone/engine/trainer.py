"""The training loop that all tasks share.

A step is a function of the weights, the optimizer's state, the random generators and the step's number; all four are in
a checkpoint. So a run that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import RunError
from . import checkpoint, distributed
from .agreement import Agreement
from .averages import Averages, diverged, flat_figures
from .clipping import finish_gradients
from .config import parse_yaml
from .hooks import Hook, load_states, states_of
from .loggers import RunRecord
from .progress import Progress, Speed, peak_memory
from .record import LOGGER, LOSS
from .signals import EndRequest, ending
from .state import Settings, State, score_of
from .task import Schedule, Task

log = logging.getLogger(LOGGER)


class Trainer:
    """Runs a Task. Build it in every process, then call `train`.

    Attributes:
        model: the network, wrapped where several processes run.
        losses: of the last step, on the device.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        settings: Settings,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.task = task
        self.hooks = list(hooks)
        self.losses: dict[str, Tensor] = {}
        self._record = RunRecord()
        self._stop = ""
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
        self._agreement = Agreement(self.hooks)
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
            "stopped": [self.state.stopped, self.settings.max_iter],
            "hooks": states_of(self.hooks),
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
        reason, of = content.get("stopped", ["", 0])
        # With more steps than it had when it was stopped, the run goes on.
        self.state.stopped = reason if of == self.settings.max_iter else ""
        load_states(self.hooks, content.get("hooks", []))
        if self.state.iteration < self.end and self.state.finished:
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

    # -- for hooks

    def stop(self, reason: str) -> None:
        """Let the step that is under way be the last, or, called elsewhere, the next one. One process is enough.

        In several processes, a call outside of a hook's own step takes effect after a second or so.
        """
        self._stop = reason or "a hook"

    def log(self, values: dict[str, float]) -> None:
        """Send numbers by name to metrics.jsonl and the other loggers, at the present step. In the main process."""
        self._record.scalars(values, self.state.iteration)

    @property
    def end(self) -> int:
        """The number of steps after which the run ends."""
        return self.state.iteration if self.state.stopped else self.settings.max_iter

    def _call(self, place: str) -> None:
        for hook in self.hooks:
            getattr(hook, place)(self)

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
        if main:
            done, evaluated = state.iteration, not state.evaluation_due
            self._record = RunRecord(settings.loggers, settings.folder, done, evaluated=evaluated)
            self._record.config(parse_yaml(settings.config, "config"))
        progress = Progress(start=state.iteration, total=settings.max_iter, visible=main)
        try:
            with self._end.listening(now=self._at_signal, watched=distributed.world_size() > 1):
                self._call("before_run")
                if state.iteration == self.end and not state.finished:
                    # A signal came in the last step.
                    self._finish()
                    self.save()
                if state.evaluation_due:
                    self._evaluate()
                self._loop(progress)
        finally:
            progress.close()
            try:
                self._call("after_run")
            finally:
                self._record.close(finished=state.finished)
        if main:
            checkpoint.save(settings.folder / checkpoint.FINAL, self.weights())
        return state

    def _loop(self, progress: Progress) -> None:
        settings, state = self.settings, self.state
        speed, averages, first = Speed(settings.batch_size), Averages(settings.remedies), state.iteration
        self.task.model.train()
        batches = iter(self.task.batches(first, settings.max_iter))
        while state.iteration < self.end:
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            if state.iteration == first and distributed.is_main():
                for name, picture in self.task.pictures(batch).items():
                    self._record.picture(name, picture, state.iteration)
            rate = self.set_rates()
            self._call("before_step")
            self.losses, step_metrics = self.step(batch)
            averages.add(self.losses, step_metrics)
            state.iteration += 1
            self._call("after_step")
            saves = self._due(settings.checkpoint_period) or self._due(settings.eval_period)
            asked = self._agreement.ask(2 * self._end.signum + bool(self._stop), now=saves)
            signum, stops = divmod(asked, 2)
            if stops:
                self._stopped()
            due = self._due(settings.log_period)
            if due:
                averages.take(state.iteration)
            speed.add(time.perf_counter() - began, waited)
            if due:
                self._report(progress, speed, averages, rate)
            progress.step(speed, state.iteration, averages.losses, rate)
            if signum:
                # Saving may take its time.
                self._end.agreed()
                self.save()
                self._leave(signum)
            if state.iteration == self.end:
                self._finish()
            # The checkpoint comes first: a run that is killed in its evaluation begins again with that evaluation.
            if saves or state.iteration == self.end:
                averages.check(state.iteration)
                self.save()
            if self._due(settings.eval_period):
                self._evaluate()
                self._agreement.ask_next()

    def _stopped(self) -> None:
        """End the run with this step, in all processes."""
        state, length = self.state, self.settings.max_iter
        state.stopped = next(filter(None, distributed.gather(self._stop)))
        log.info("stopped after %d of %d iterations: %s", state.iteration, length, state.stopped)

    def _finish(self) -> None:
        self.task.finish()
        self.state.finished = True

    def _due(self, period: int, done: int | None = None) -> bool:
        done = self.state.iteration if done is None else done
        return done == self.end or (period > 0 and done % period == 0)

    def set_rates(self) -> float:
        """Give the optimizer the rates of the next step; return that of its first group."""
        multiplier = self.schedule.multiplier(self.state.iteration)
        for group, base in zip(self.optimizer.param_groups, self.base_rates):
            group["lr"] = base * multiplier
        return self.optimizer.param_groups[0]["lr"]

    def step(self, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take one step; return its losses and metrics, on the device."""
        # Before the forward pass, whose peak of memory the last step's gradients would lift.
        self.optimizer.zero_grad(set_to_none=True)
        take = self._backward if self.settings.accumulate == 1 else self._accumulate
        losses, step_metrics = take(batch)
        measure = self._due(self.settings.log_period, self.state.iteration + 1)
        found = finish_gradients(self.optimizer, self.scaler, self.settings.clip, measure=measure)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.task.stepped(self.state.iteration + 1)
        if getattr(self.schedule, "watching", False):
            self.schedule.observe({name: float(distributed.mean(value)) for name, value in step_metrics.items()})
        return losses, {**step_metrics, **found}

    def _accumulate(self, batch: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Sum the gradients of a batch's parts; return losses and metrics of the whole."""
        sums: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        parts = self.task.parts(batch, self.state.iteration, self.settings.accumulate)
        for number, (part, share) in enumerate(parts, 1):
            last = number == len(parts)
            # Processes exchange the sum alone.
            quiet = contextlib.nullcontext() if last or self.model is self.task.model else self.model.no_sync()
            with quiet:
                found = self._backward(part, share)
            for total, values in zip(sums, found):
                for name, value in values.items():
                    total[name] = total.get(name, 0) + (value if values is found[0] else value * share)
        return sums

    def _backward(self, batch: Any, share: float | Tensor | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Add the gradients of the losses, each times its `share`; return these products, and the metrics."""
        try:
            with self.autocast():
                losses = self.task.losses(self.model, batch, self.state.iteration)
        except FloatingPointError:
            # detectron2 raises it where region proposals are not finite.
            raise diverged("a predicted box or score", self.state.iteration, self.settings.remedies) from None
        if share is not None:
            losses = {name: loss * share for name, loss in losses.items()}
        self.scaler.scale(sum(losses.values())).backward()
        return {name: loss.detach() for name, loss in losses.items()}, dict(self.task.step_metrics())

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context of the forward pass."""
        return torch.autocast(self.settings.device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def _report(self, progress: Progress, speed: Speed, averages: Averages, rate: float) -> None:
        if not distributed.is_main():
            return
        progress.report(speed, self.state.iteration, averages.losses, rate)
        scalars = {
            LOSS: sum(averages.losses.values()),
            **averages.last,
            "lr": rate,
            "images_per_second": speed.images_per_second,
            "data_share": speed.data_share,
            "memory_gib": peak_memory(self.settings.device) / 2**30,
        }
        self._record.scalars({f"train/{name}": float(value) for name, value in scalars.items()}, self.state.iteration)

    def _evaluate(self) -> None:
        self._call("before_evaluation")
        self._evaluate_now()
        self._call("after_evaluation")

    def _evaluate_now(self) -> None:
        generators = checkpoint.rng_state()
        self._in_evaluation = True
        self._at_signal()
        self.task.model.eval()
        distributed.share_buffers(self.task.model)
        results = self.task.evaluate(final=self.state.iteration == self.end)
        self.task.model.train()
        self._in_evaluation = False
        checkpoint.set_rng_state(generators)
        self.state.results = results
        if hasattr(self.schedule, "evaluated"):
            self.schedule.evaluated(results)
        if not results:
            return
        flat = flat_figures(results)
        value = flat.get(self.settings.best)
        score = None if value is None else score_of(self.settings.best, float(value))
        better = score is not None and score > self.state.best
        if better:
            self.state.best, self.state.best_iteration = score, self.state.iteration
        if distributed.is_main():
            self._record.scalars(flat, self.state.iteration)
            for name, picture in self.task.evaluation_pictures().items():
                self._record.picture(name, picture, self.state.iteration)
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

"""Hooks: what a user's own code does at fixed places of a run, of any task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from .state import Settings, State
from .task import Task


class Run(Protocol):
    """What a hook may use of the trainer.

    Attributes:
        model: the network, wrapped where several processes run; `task.model` is the network itself.
        state: `iteration` (steps done), `results` of the last evaluation, `best`.
        losses: of the last step, on the device.
    """

    task: Task
    model: nn.Module
    optimizer: Optimizer
    settings: Settings
    state: State
    losses: dict[str, Tensor]

    def stop(self, reason: str) -> None: ...

    def log(self, values: dict[str, float]) -> None: ...


class Hook:
    """Called at fixed places of a run, in every process. A hook of one's own overrides what it needs."""

    def before_run(self, trainer: Run) -> None:
        """Called once, before the first step of this call; of a resumed run, after the checkpoint was read."""

    def before_step(self, trainer: Run) -> None:
        """Called when the batch and the learning rate of a step are there."""

    def after_step(self, trainer: Run) -> None:
        """Called after the weights have changed; `trainer.losses` has the losses, on the device."""

    def before_evaluation(self, trainer: Run) -> None:
        """Called before each evaluation."""

    def after_evaluation(self, trainer: Run) -> None:
        """Called after each evaluation; `trainer.state.results` is {kind: {metric: value}}."""

    def after_run(self, trainer: Run) -> None:
        """Called once, however the run ends; `trainer.state.finished` says whether it took its last step."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, in plain types and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""


Maker = TypeVar("Maker", bound=Callable[[], Hook])
_makers: dict[str, Callable[[], Hook]] = {}


def register_hook(make: Maker) -> Maker:
    """Add a hook to all runs that begin in this process: a subclass of Hook, or a function that returns one.

    Usable as a decorator, in a module of `--import`. Registering the same again replaces the former one.
    """
    _makers[f"{make.__module__}.{make.__qualname__}"] = make
    return make


def registered_hooks() -> list[Hook]:
    """Return a new hook of each that was registered, in that order."""
    return [make() for make in _makers.values()]


def states_of(hooks: list[Hook]) -> list[list[Any]]:
    """Return [name, state] of each hook that has a state."""
    found = [[type(hook).__qualname__, hook.state_dict()] for hook in hooks]
    return [[name, state] for name, state in found if state]


def load_states(hooks: list[Hook], states: list[list[Any]]) -> None:
    """Give hooks the states of their names, in order; a hook that is new starts afresh."""
    waiting = [list(pair) for pair in states]
    for hook in hooks:
        own = next((pair for pair in waiting if pair[0] == type(hook).__qualname__), None)
        if own is not None:
            waiting.remove(own)
            hook.load_state_dict(own[1])

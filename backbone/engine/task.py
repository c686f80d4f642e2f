"""What the trainer trains: the interface of detectors and classifiers, and of learning-rate schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from .broken import BrokenImages


class Schedule(Protocol):
    """The learning rate as a multiple of the base one.

    A schedule may watch the run too: `observe(step_metrics)` after every step while `watching` is set,
    `evaluated(results)` after every evaluation, `state_dict()` and `load_state_dict(state)` for what it remembers.
    """

    def multiplier(self, iteration: int) -> float: ...


class Task(ABC):
    """What is trained. The trainer knows of detection and classification no more than this.

    Attributes:
        model: the network, on its device.
        broken: the training images of this process that could not be read and were replaced.
    """

    model: nn.Module
    broken: BrokenImages

    @abstractmethod
    def batches(self, start: int, end: int) -> Iterable[Any]:
        """Yield this process's batches of the steps start..end-1."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        """Return the losses of one batch; their sum is minimised. `model` may be wrapped for several processes."""

    def step_metrics(self) -> dict[str, Tensor]:
        """Return what of the last step is averaged and shown beside the losses, such as the training error."""
        return {}

    def stepped(self, iteration: int) -> None:  # noqa: B027 (optional)
        """Called after each optimizer step; `iteration` is the number of steps done."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs beside weights and optimizer, in types that a safe reader takes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 (optional)
        """Take back what `state_dict` returned."""

    def weights(self) -> dict[str, Tensor]:
        """Return the state dict of what was learned: final and best checkpoints hold it."""
        return self.model.state_dict()

    def evaluate(self, *, final: bool = True) -> dict[str, dict[str, float]]:
        """Return {kind: {metric: value}} on the test sets; called in every process.

        Args:
            final: the training has ended; what its end alone needs, such as submissions, is left out before.
        """
        return {}

    def pictures(self, batch: Any) -> dict[str, np.ndarray]:
        """Return {name: (H, W, 3) RGB uint8} of a training batch, for TensorBoard."""
        return {}

    def evaluation_pictures(self) -> dict[str, np.ndarray]:
        """Return {name: (H, W, 3) RGB uint8} of the last evaluation, for TensorBoard; called in the main process."""
        return {}

    def metadata(self) -> dict[str, Any]:
        """Return what belongs to the weights in a checkpoint, in plain types."""
        return {}

    def finish(self) -> None:  # noqa: B027 (optional)
        """Called once after the last step and before the last evaluation."""

    def unfinish(self) -> None:  # noqa: B027 (optional)
        """Undo `finish`: a run that had ended goes on to more steps."""

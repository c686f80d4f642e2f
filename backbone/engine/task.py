"""What the trainer trains: the interface of detectors and classifiers, and of learning-rate schedules."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from .broken import BrokenImages
from .moving_average import MovingAverage
from .record import LOGGER

log = logging.getLogger(LOGGER)


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
        average: of the weights over the steps, which is then what is tested and kept; None where a run has none.
        winograd_kinds: classes of convolutions beside torch's, see `use_winograd`.
        compiles_by_size: whether MODEL.COMPILE makes a graph for each size of images.
    """

    model: nn.Module
    broken: BrokenImages
    average: MovingAverage | None = None
    winograd_kinds: Mapping[type, type] = {}
    compiles_by_size: bool = False

    @abstractmethod
    def batches(self, start: int, end: int) -> Iterable[Any]:
        """Yield this process's batches of the steps start..end-1."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        """Return the losses of one batch; their sum is minimised. `model` may be wrapped for several processes."""

    def parts(self, batch: Any, iteration: int, number: int) -> list[tuple[Any, float | Tensor]]:
        """Cut a batch into parts for `losses`, each with its share: the batch's loss is the sum of share times loss."""
        images = len(batch)
        ends = np.linspace(0, images, min(number, images) + 1).round().astype(int).tolist()
        return [(batch[start:end], (end - start) / images) for start, end in zip(ends, ends[1:])]

    def step_metrics(self) -> dict[str, Tensor | float]:
        """Return what of the last step is averaged and shown beside the losses, such as the training error.

        What may be missing in some steps, or in some processes, must be a float.
        """
        return {}

    def stepped(self, iteration: int) -> None:
        """Called after each optimizer step; `iteration` is the number of steps done."""
        if self.average is not None:
            self.average.update(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs beside weights and optimizer, in types that a safe reader takes."""
        # A task without images has none that are broken.
        broken = {"broken": self.broken.messages} if hasattr(self, "broken") else {}
        return {**broken, **({"average": self.average.state_dict()} if self.average is not None else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        if hasattr(self, "broken"):
            self.broken.messages[:] = state.get("broken", [])
        if self.average is not None and "average" in state:
            self.average.load_state_dict(state["average"])
        elif self.average is not None:
            self.average = MovingAverage(self.model, self.average.decay)
            log.warning("the run had no moving average before (SOLVER.EMA_DECAY): it begins with the weights of now")
        elif "average" in state:
            log.warning("the run had a moving average before (SOLVER.EMA_DECAY): it is left out from here on")

    def weights(self) -> dict[str, Tensor]:
        """Return the state dict of what was learned: final and best checkpoints hold it."""
        return self.average.state if self.average is not None else self.model.state_dict()

    def averaged(self) -> nn.Module:
        """Return the model that is tested, in eval mode: with the same `weights` in every process. Collective."""
        if self.average is not None:
            self.average.share()
        return self.learned()

    def learned(self) -> nn.Module:
        """Return the model with `weights`, in eval mode: a copy, or itself where there is no average."""
        if self.average is None:
            return self.model.eval()
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.average.state)
        return model.eval()

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

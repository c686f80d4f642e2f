"""Training a classifier from Python: what tools/pretrain.py does, by one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError
from ..engine import from_python
from ..engine.hooks import Hook
from .classifier import Classifier, load_classifier
from .config import PROTOCOLS
from .session import make_request, run

# A set in any form; of a CSV also with the folder of its images.
GivenSet = str | Path | Sequence[str | Path]


class TrainingRun(from_python.FinishedTraining):
    """See `FinishedTraining`."""

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The figures of the last evaluation, fractions: {"1crop": {"top1_error": ..., "per_class": ...}}."""
        return self._kinds(PROTOCOLS)

    @cached_property
    def classifier(self) -> Classifier:
        """The classifier of the best weights, or of the last ones where nothing was evaluated."""
        return load_classifier(self.weights, self.device)

    def __repr__(self) -> str:
        return self._described("top1_accuracy")


def train(
    config: str | Path,
    *,
    train: GivenSet | None,
    val: GivenSet | None,
    epochs: float | None,
    output_dir: str | Path | None,
    overrides: Sequence[object],
    hooks: Sequence[Hook],
    processes: int | None,
    flags: dict[str, Any],
    keys: dict[str, Any],
) -> TrainingRun:
    """See `backbone.train`."""
    return TrainingRun(
        *from_python.train(
            config,
            partial(make_request, hooks=tuple(hooks)),
            run,
            pairs=from_python.keys_of(overrides, epochs, keys),
            output_dir=output_dir,
            processes=processes,
            flags={**flags, **_own("train", train), **_own("val", val)},
        )
    )


def _own(split: str, value: GivenSet | None) -> dict[str, str]:
    """Return the flags of a set."""
    if value is None:
        return {}
    if isinstance(value, (str, os.PathLike)):
        return {split: str(value)}
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ConfigError(f"{split} is {value!r}; give a path, or (CSV file, image folder)")
    return {split: str(value[0]), f"{split}_images": str(value[1])}

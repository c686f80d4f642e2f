"""Training from Python: what tools/train_net.py does, by one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from backbone import ConfigError, DataError
from backbone.common.text import nearest
from backbone.engine.from_python import FinishedTraining, keys_of
from backbone.engine.from_python import train as run_training
from backbone.engine.hooks import Hook

from ..data.catalog import known_sets
from ..data.registered import is_registered
from ..data.transforms import Transform
from ..evaluation import IOU_TYPES
from ..inference.detector import Detector, load_trained_detector
from .session import make_request, run

# A set: a name, several names, or a place on the disk.
GivenSet = str | Path | Sequence[str]


class TrainingRun(FinishedTraining):
    """See `FinishedTraining`."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The figures of the last evaluation, fractions: {"bbox": {"AP": ..., "AP50": ...}}; of several test sets,
        {"<set>/bbox": ...}."""
        return self._kinds(IOU_TYPES)

    @cached_property
    def detector(self) -> Detector:
        """The detector of the best weights, or of the last ones where nothing was evaluated."""
        return load_trained_detector(self.weights, self.device)

    def __repr__(self) -> str:
        return self._described("AP")


def train(
    config: str | Path,
    *,
    train: GivenSet | None,
    val: GivenSet | None,
    epochs: float | None,
    output_dir: str | Path | None,
    overrides: Sequence[object],
    hooks: Sequence[Hook],
    transforms: Sequence[Transform],
    processes: int | None,
    flags: dict[str, Any],
    keys: dict[str, Any],
) -> TrainingRun:
    """See `detection.train`."""
    pairs = keys_of(overrides, epochs, keys)
    given = {**_own("train", "TRAIN", train, pairs), **_own("val", "TEST", val, pairs)}
    return TrainingRun(
        *run_training(
            config,
            partial(make_request, hooks=tuple(hooks), transforms=tuple(transforms)),
            run,
            pairs=pairs,
            output_dir=output_dir,
            processes=processes,
            flags={**flags, **given},
        )
    )


def _own(split: str, section: str, value: GivenSet | None, pairs: list[object]) -> dict[str, str]:
    """Return the flags of a set of one's own; of sets by name, add the config's key to `pairs`."""
    if value is None:
        return {}
    names = [value] if isinstance(value, (str, Path)) else list(value)
    if all(str(name) in known_sets() or is_registered(str(name)) for name in names):
        pairs += [f"DATASETS.{section}", tuple(map(str, names))]
        if split == "train" and "DATASETS.TEST" not in pairs:
            # The config's own test set has other classes.
            pairs += ["DATASETS.TEST", ()]
        return {}
    if len(names) == 2 and os.path.isdir(names[1]):
        return {split: str(names[0]), f"{split}_images": str(names[1])}
    if len(names) > 1:
        raise ConfigError(f"{split} is {value!r}; give a path, (JSON file, image folder), or names of data sets")
    if not os.path.exists(names[0]):
        known = nearest(str(names[0]), known_sets())
        raise DataError(f"{split} is {str(names[0])!r}: no such file or folder, and no known data set{known}")
    return {split: str(names[0])}

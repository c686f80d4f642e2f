"""Training from Python: what tools/train_net.py does, by one call."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from backbone import ConfigError, DataError
from backbone.common.reading import read_bytes
from backbone.common.text import nearest
from backbone.engine import checkpoint
from backbone.engine.hooks import Hook
from backbone.engine.processes import Launch
from backbone.engine.record import RESULTS, read_metrics, stop_logging
from backbone.engine.session import default_output

from ..data.catalog import known_sets
from ..data.registered import is_registered
from ..data.transforms import Transform
from ..evaluation import IOU_TYPES
from ..inference.detector import Detector, load_trained_detector
from .session import make_request, run

# A set: a name, several names, or a place on the disk.
GivenSet = str | Path | Sequence[str]


class _Flags(Namespace):
    """The flags of tools/train_net.py; those that were not given are None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)


@dataclass(frozen=True)
class TrainingRun:
    """A training that has ended.

    Attributes:
        folder: the run folder.
        record: what results.json holds.
        device: that it ran on.
    """

    folder: Path
    record: dict[str, Any]
    device: str

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The figures of the last evaluation, fractions: {"bbox": {"AP": ..., "AP50": ...}}; of several test sets,
        {"<set>/bbox": ...}."""
        return {kind: figures for kind, figures in self.record.items() if kind.rpartition("/")[2] in IOU_TYPES}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, each with its `iteration`."""
        return read_metrics(self.folder / "metrics.jsonl")

    @cached_property
    def detector(self) -> Detector:
        """The detector of the best weights, or of the last ones where nothing was evaluated."""
        best, last = self.folder / checkpoint.BEST, self.folder / checkpoint.FINAL
        return load_trained_detector(best if best.is_file() else last, self.device)

    def __repr__(self) -> str:
        figures = ", ".join(f"{kind} AP {values['AP']:.4f}" for kind, values in self.metrics.items() if "AP" in values)
        return f"<TrainingRun {self.folder}: {self.record['iteration']} iterations{', ' if figures else ''}{figures}>"


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
    pairs = [*overrides, *(item for key, value in keys.items() for item in (key.replace("__", "."), value))]
    if epochs is not None:
        pairs += ["SOLVER.EPOCHS", epochs]
    given = {**_own("train", "TRAIN", train, pairs), **_own("val", "TEST", val, pairs)}
    output = str(output_dir or default_output(str(config), eval_only=False))
    switches = dict.fromkeys(("resume", "overwrite", "force", "eval_only", "plan"), False)
    flags = {**switches, "imports": [], **flags, **given, "output_dir": output, "overrides": pairs}
    of_run = {"hooks": tuple(hooks), "transforms": tuple(transforms)}
    request = make_request(_Flags(config=str(config), num_processes=processes, **flags), **of_run)
    device = request.config.MODEL.DEVICE
    try:
        run(request, Launch(device=device, processes=processes))
    finally:
        stop_logging()
    record = json.loads(read_bytes(Path(output) / RESULTS))
    return TrainingRun(Path(output), record, device)


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

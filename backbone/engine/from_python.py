"""Training from Python: what a tool that trains does, by one call."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.reading import read_bytes
from . import checkpoint
from .processes import Launch
from .record import METRICS, RESULTS, read_metrics, stop_logging
from .session import Request, default_output

# What is off where nobody asks for it.
SWITCHES = ("resume", "overwrite", "force", "eval_only", "plan")


class Flags(Namespace):
    """The flags of a tool; those that were not given are None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)


@dataclass(frozen=True)
class FinishedTraining:
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
    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, each with its `iteration`."""
        return read_metrics(self.folder / METRICS)

    @property
    def weights(self) -> Path:
        """The checkpoint of the best weights, or of the last ones where nothing was evaluated."""
        return Path(checkpoint.in_folder(self.folder))

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The figures of the last evaluation by kind, fractions."""
        raise NotImplementedError

    def _kinds(self, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {kind: figures for kind, figures in self.record.items() if kind.rpartition("/")[2] in kinds}

    def _described(self, figure: str) -> str:
        found = [f", {kind} {figure} {of[figure]:.4f}" for kind, of in self.metrics.items() if figure in of]
        return f"<TrainingRun {self.folder}: {self.record['iteration']} iterations{''.join(found)}>"


def keys_of(overrides: Sequence[object], epochs: float | None, keys: dict[str, Any]) -> list[object]:
    """Return KEY, VALUE, ... of the config keys that a call gives in its several ways."""
    pairs = [*overrides, *(item for key, value in keys.items() for item in (key.replace("__", "."), value))]
    return pairs if epochs is None else [*pairs, "SOLVER.EPOCHS", epochs]


def train(
    config: str | Path,
    make_request: Callable[[Namespace], Request],
    run: Callable[[Request, Launch], None],
    *,
    pairs: Sequence[object],
    output_dir: str | Path | None,
    processes: int | None,
    flags: dict[str, Any],
) -> tuple[Path, dict[str, Any], str]:
    """Train as a tool does with its flags; return what a FinishedTraining holds.

    Args:
        pairs: KEY, VALUE, ... of the config.
        flags: of the tool, but for those that the other arguments stand for.

    Raises:
        UserError: something in the request, the data or the machine is wrong.
    """
    output = str(output_dir or default_output(str(config), eval_only=False))
    flags = {**dict.fromkeys(SWITCHES, False), "imports": [], **flags, "output_dir": output, "overrides": list(pairs)}
    request = make_request(Flags(config=str(config), num_processes=processes, **flags))
    device = request.config.MODEL.DEVICE
    try:
        run(request, Launch(device=device, processes=processes))
    finally:
        stop_logging()
    return Path(output), json.loads(read_bytes(Path(output) / RESULTS)), device

"""Runs beside each other: where they stand, what came out, in which keys they differ, and their curves."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..common.errors import RunError
from ..common.reading import read_text
from ..common.text import table
from ..common.waiting import duration
from .config import flat, read_yaml
from .record import CONFIG, LOSS, METRICS, RESULTS, read_metrics

# The figures that are shown first, where a run has them: a run's own main figure is the first of them.
FIRST = (
    "AP",
    "mAP",
    "mIoU",
    "true_class_error",
    "top1_error",
    "AP50",
    "AP75",
    "top5_error",
    "pixel_accuracy",
    "accuracy",
    LOSS,
)
# Of a class, in segmentation.
IOU = "IoU-"
# Keys that say where a run lies and runs, and change no figure.
PLACES = ("OUTPUT_DIR", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS")


@dataclass(frozen=True)
class FinishedRun:
    """What a run folder holds.

    Attributes:
        name: the folder, below the one that was searched.
        config: {key: value} with dotted keys.
        lines: of metrics.jsonl.
        results: of results.json; empty where the run has not ended.
    """

    name: str
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    results: dict[str, Any]

    @property
    def iteration(self) -> int:
        return max((line["iteration"] for line in self.lines), default=0)

    @property
    def state(self) -> str:
        """Return "done", "stopped at 120: ..." or "at 120 of 450"."""
        if self.results:
            reason = self.results.get("stopped")
            return f"stopped at {self.results.get('iteration')}: {reason}" if reason else "done"
        return f"at {self.iteration:,} of {self.config.get('SOLVER.MAX_ITER', 0):,}"

    @cached_property
    def figures(self) -> dict[str, float]:
        """The last figures, "kind/metric" -> value: of results.json, else of the last evaluation."""
        if self.results:
            nested = {kind: values for kind, values in self.results.items() if isinstance(values, dict)}
            found = {
                f"{kind}/{name}": value
                for kind, values in nested.items()
                if kind not in ("versions", "best", "test_images")
                for name, value in values.items()
                if _is_number(value)
            }
            if found:
                return found
        tested: dict[str, Any] = next((line for line in reversed(self.lines) if LOSS not in line), {})
        return {name: value for name, value in tested.items() if "/" in name and _is_number(value)}

    @property
    def classes(self) -> dict[str, float]:
        """The figure of each class, of the first kind that has them; empty where there are none."""
        for values in self.results.values():
            if not isinstance(values, dict):
                continue
            per_class = values.get("per_class")
            if not isinstance(per_class, dict):
                per_class = {name.removeprefix(IOU): value for name, value in values.items() if name.startswith(IOU)}
            found = {name: _class_figure(value) for name, value in per_class.items()}
            if found:
                return {name: value for name, value in found.items() if value is not None}
        return {}

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Return (iteration, value) of a number of metrics.jsonl."""
        return [(line["iteration"], line[name]) for line in self.lines if _is_number(line.get(name))]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _class_figure(value: Any) -> float | None:
    """Return a class's first figure, or itself; None where it has none (NaN, without objects)."""
    if isinstance(value, dict):
        value = next((value[name] for name in FIRST if name in value), None)
    return value if _is_number(value) else None


def find_runs(root: Path) -> list[FinishedRun]:
    """Return the runs in a folder and below it, by name.

    Raises:
        RunError: there is none, or one cannot be read.
    """
    folders = sorted(path.parent for path in root.rglob(CONFIG) if (path.parent / METRICS).is_file())
    if not folders:
        raise RunError(f"{root}: no run folder here or below it (one holds {CONFIG} and {METRICS})")
    return [read_run(folder, str(folder.relative_to(root)) if folder != root else root.name) for folder in folders]


def read_run(folder: Path, name: str) -> FinishedRun:
    """Return what a run folder holds.

    Raises:
        UserError: one of its files cannot be read.
    """
    config = dict(flat(read_yaml(folder / CONFIG)))
    return FinishedRun(name, config, read_metrics(folder / METRICS), _read_results(folder / RESULTS))


def _read_results(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        results = json.loads(read_text(path))
    except ValueError as error:
        raise RunError(f"{path}: no JSON: {error}") from None
    if not isinstance(results, dict):
        raise RunError(f"{path}: no results of a run, but {type(results).__name__}")
    return results


def figure_names(runs: Iterable[FinishedRun], most: int = 4) -> list[str]:
    """Return the figures that are worth a column, the main one first."""
    there = {name for run in runs for name in run.figures}
    ranked = sorted(there, key=lambda name: (_rank(name), name))
    return [name for name in ranked if _rank(name) < len(FIRST)][:most]


def _rank(name: str) -> int:
    metric = name.rpartition("/")[2]
    return FIRST.index(metric) if metric in FIRST else len(FIRST)


def overview(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the table of all runs: the better ones first."""
    names = figure_names(runs)
    rows: list[list[object]] = []
    for run in sorted(runs, key=lambda run: _order(run, names)):
        seconds = run.results.get("seconds")
        took = duration(seconds) if _is_number(seconds) else None
        date = str(run.results.get("date", ""))[:10] or None
        rows.append([run.name, run.state, *(run.figures.get(name) for name in names), took, date])
    return ["run", "state", *names, "time", "date"], rows


def _order(run: FinishedRun, names: Sequence[str]) -> tuple[float, str]:
    value = run.figures.get(names[0]) if names else None
    if value is None:
        return (float("inf"), run.name)
    return (value if names[0].endswith("error") else -value, run.name)


def differences(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the config keys in which the runs differ, side by side."""
    # A key that one of them lacks is of another task or release.
    keys = sorted(set.intersection(*(set(run.config) for run in runs)) - set(PLACES))
    values = {key: [run.config[key] for run in runs] for key in keys}
    rows = [[key, *map(str, found)] for key, found in values.items() if len({repr(value) for value in found}) > 1]
    return ["key", *(run.name for run in runs)], rows


def worst_classes(runs: Sequence[FinishedRun], most: int = 8) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the classes with the lowest mean figure over the runs."""
    runs = [run for run in runs if run.classes]
    names = {name for run in runs for name in run.classes}
    means = {name: statistics.mean(run.classes[name] for run in runs if name in run.classes) for name in names}
    chosen = sorted(means, key=lambda name: (means[name], name))[:most]
    return ["class", *(run.name for run in runs)], [[name, *(run.classes.get(name) for run in runs)] for name in chosen]


def spread(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of each figure's mean, deviation (of a sample) and range over the runs."""
    rows: list[list[object]] = []
    for name in figure_names(runs, most=99):
        found = [run.figures[name] for run in runs if name in run.figures]
        deviation = statistics.stdev(found) if len(found) > 1 else None
        rows.append([name, statistics.mean(found), deviation, min(found), max(found), len(found)])
    return ["figure", "mean", "deviation", "least", "greatest", "runs"], rows


def text(runs: Sequence[FinishedRun]) -> str:
    """Return all tables as Markdown."""
    parts = [_table(*overview(runs))]
    if len(runs) > 1:
        header, rows = differences(runs)
        parts.append(f"Keys that differ\n\n{_table(header, rows)}" if rows else "The configs are the same.")
    header, rows = worst_classes(runs)
    if rows:
        parts.append(f"Worst classes\n\n{_table(header, rows)}")
    return "\n\n".join(parts)


def _table(header: list[str], rows: list[list[object]]) -> str:
    return table(rows, header, digits=4)

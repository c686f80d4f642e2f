"""What the run folders of a row hold: where the run stands, its figures, curves, and how it was made."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.common.errors import ConfigError
from backbone.common.pages.chart import Curve
from backbone.engine import checkpoint
from backbone.engine.config import differences, read_yaml, to_plain
from backbone.engine.record import CONFIG, METRICS, RESULTS, read_metrics

from .rows import DONE, FOR_SERVER, UNFINISHED, UNTESTED, Figure, Record, Row, Step
from .schedule import share_of_schedule

CONFIG_KEY = re.compile(r"[A-Z0-9_]+(\.[A-Z0-9_]+)*")


@dataclass(frozen=True)
class Run:
    """A run folder, read once.

    Attributes:
        config: as in its config.yaml, None where no training was begun.
        results: of results.json, None before the end.
    """

    folder: Path
    config: dict[str, Any] | None
    results: dict[str, Any] | None

    @property
    def begun(self) -> bool:
        return self.config is not None or checkpoint.newest(self.folder) is not None

    @property
    def ended(self) -> bool:
        """Whether the training has come to the end of its schedule and has written its results."""
        if self.config is None or self.results is None:
            return False
        iteration = self.results.get("iteration")
        return isinstance(iteration, int) and iteration >= self.total

    @property
    def total(self) -> int:
        """Iterations of its schedule."""
        return self.config["SOLVER"]["MAX_ITER"] if self.config else 0


def read_run(folder: Path) -> Run:
    """Read config and results of a run folder; a folder that is not there is a run not begun.

    Raises:
        ConfigError: its config.yaml is broken.
    """
    path = folder / CONFIG
    config = read_yaml(path) if path.is_file() else None
    if config is not None and not isinstance(config.get("SOLVER", {}).get("MAX_ITER"), int):
        raise ConfigError(f"{path}: not the config of a run: it has no SOLVER.MAX_ITER; remove the folder, or mend it")
    return Run(folder, config, read_results(folder / RESULTS))


def read_results(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def value_in(results: dict[str, Any] | None, path: tuple[str, ...]) -> Any:
    """Return the value at a path of keys, or None."""
    value: Any = results
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def test_results(step: Step, run: Run, runs: Path) -> dict[str, Any] | None:
    """Return the results of a test of `run`, unless they are older than it or another training that they are of."""
    results = read_results(runs / step.folder / RESULTS)
    trained = [run.results, *(read_results(runs / name / RESULTS) for name in step.needs if name != run.folder.name)]
    if results is None or None in trained:
        return None
    return results if str(results.get("date", "")) >= max(str(one.get("date", "")) for one in trained) else None


def results_of(row: Row, run: Run, runs: Path) -> list[dict[str, Any]]:
    """Return the results that a row's figures may stand in: of its training, unless it is another row's, and tests."""
    own = [] if row.test_only else [run.results]
    return [results for results in (*own, *(test_results(step, run, runs) for step in row.tests)) if results]


def lacking(row: Row, run: Run, runs: Path) -> list[str]:
    """Return the places of the figures that are not there; of a tested row for an evaluation server, none."""
    if row.server and results_of(row, run, runs):
        return []
    return ["/".join(figure.path) for figure in row.figures if source_of(figure, row, run, runs) is None]


def source_of(figure: Figure, row: Row, run: Run, runs: Path) -> dict[str, Any] | None:
    """Return the results that hold this figure, of the training or of one of the row's tests."""
    for results in results_of(row, run, runs):
        value = value_in(results, figure.path)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return results
    return None


def gather(row: Row, runs: Path) -> Record:
    """Read all that the folders of a row hold.

    Raises:
        ConfigError: a config.yaml in them is broken.
    """
    run = read_run(runs / row.train.folder)
    if not run.begun:
        return Record(row, run.folder)
    config = run.config or {}
    reference = row.kind.load(row.config_of(row.train), ())
    sources = {figure.name: source_of(figure, row, run, runs) for figure in row.figures} if run.ended else {}
    found = {figure: sources[figure.name] for figure in row.figures if sources.get(figure.name)}
    lines = read_metrics(run.folder / METRICS)
    first = next(iter(found), None)
    tested = results_of(row, run, runs)
    made = found[first] if first else next(iter(tested), None) or run.results or {}
    measured = {figure.name: float(value_in(source, figure.path)) for figure, source in found.items()}
    seeds = _of_repeats(row, first, measured, runs) if first and row.repeats else ()
    if seeds:
        measured[first.name] = min(seeds)
    return Record(
        row=row,
        folder=run.folder,
        state=_state(row, run, runs, complete=len(found) == len(row.figures)),
        measured=measured,
        seeds=seeds,
        drops=drops_of(curve_of(lines, "lr")),
        images=_images(made, first),
        iteration=_iteration(run, lines),
        total=run.total,
        schedule_share=share_of_schedule(config, reference) if config else None,
        seed=config.get("SEED"),
        data=str(value_in(config, tuple(row.kind.root_key.split("."))) or ""),
        weights=str(value_in(config, tuple(row.kind.weights_key.split("."))) or ""),
        changes=tuple(
            dict.fromkeys([*(changes(config, reference, row) if config else ()), *_changes_of_tests(row, tested)])
        ),
        curves={name: curve_of(lines, key) for name, key in row.curves.items()},
        made=made,
    )


def _of_repeats(row: Row, figure: Figure, measured: dict[str, float], runs: Path) -> tuple[float, ...]:
    """Return a figure of the row's own training and of its repeats that have ended, an error each."""
    ended = [run for step in row.repeats if (run := read_run(runs / step.folder)).ended]
    found = [value_in(run.results, figure.path) for run in ended]
    return (measured[figure.name], *(float(value) for value in found if isinstance(value, (int, float))))


def _images(made: dict[str, Any], figure: Figure | None) -> int | None:
    """Return the number of test images: beside the figure, or of all sets of a detector's test."""
    beside = value_in(made, (*figure.path[:-1], "images")) if figure else None
    sets = made.get("test_images")
    return beside or (sum(sets.values()) if isinstance(sets, dict) else None)


def _state(row: Row, run: Run, runs: Path, *, complete: bool) -> str:
    if not run.ended:
        return UNFINISHED
    if complete:
        return DONE
    return UNTESTED if lacking(row, run, runs) else FOR_SERVER


def _iteration(run: Run, lines: list[dict[str, Any]]) -> int:
    if run.ended:
        return run.results["iteration"]
    saved = checkpoint.numbered(run.folder)
    return max([line["iteration"] for line in lines] + [saved[-1][0] if saved else 0])


def changes(config: dict[str, Any], reference: Any, row: Row) -> tuple[str, ...]:
    """Return what a run's config has otherwise than the file that names the row, in words; the seed stands apart."""
    free = {*row.kind.free_keys, "SEED"} - set(row.kind.telling_keys)
    return tuple(f"{key} {ours} (config: {theirs})" for key, ours, theirs in different(config, reference, free))


def _changes_of_tests(row: Row, tested: list[dict[str, Any]]) -> list[str]:
    """Return what the tests of a row that is tested alone had otherwise than its config, by their commands.

    Schedules do not count, nor do the weights and keys that the step itself asks for.
    """
    if not row.test_only:
        return []
    own = {key for step in row.tests for key in (*dict(step.weights_in), *dict(step.networks_in), *step.overrides[::2])}
    found = []
    for results in tested:
        words = shlex.split(str(results.get("command", "")))
        pairs = [part for place in _places_of_keys(words) for part in words[place : place + 2]]
        try:
            config = to_plain(row.kind.load(row.config, pairs))
        except ConfigError as error:
            found.append(f"tested with keys that are refused now ({error})")
            continue
        free = {*row.kind.free_keys, "SEED", *own} - (set(row.kind.telling_keys) - own)
        message = different(config, row.kind.load(row.config, ()), free)
        found += [f"{key} {ours} (config: {theirs})" for key, ours, theirs in message if not key.startswith("SOLVER.")]
    return found


def _places_of_keys(words: list[str]) -> range:
    """Return where KEY VALUE pairs begin: they stand at the end of a command."""
    start = len(words)
    while start >= 2 and CONFIG_KEY.fullmatch(words[start - 2]):
        start -= 2
    return range(start, len(words), 2)


def different(config: dict[str, Any], other: Any, free: Collection[str]) -> list[tuple[str, Any, Any]]:
    """Return (key, value, the other's value) where a run's config differs from another, but for the free keys.

    A key that only one of them knows came or went with a release of the project; it is no difference.
    """
    plain = to_plain(other)
    keys = [tuple(key.split(".")) for key in differences(config, plain) if key not in free]
    values = [(".".join(key), value_in(config, key), value_in(plain, key)) for key in keys]
    return [(key, ours, theirs) for key, ours, theirs in values if ours is not None and theirs is not None]


def drops_of(rates: Curve) -> tuple[int, ...]:
    """Return the iterations at which a rate that stood still fell to half or less; a cosine has none."""
    steps = zip(rates, rates[1:], rates[2:])
    return tuple(at for (_, first), (at, before), (_, after) in steps if first == before and after <= before / 2)


def curve_of(lines: list[dict[str, Any]], key: str) -> Curve:
    """Return (iteration, share) of a key in metrics.jsonl, in order; of lines of one iteration the last counts."""
    points = {line["iteration"]: line[key] for line in lines if isinstance(line.get(key), (int, float))}
    return sorted((iteration, float(value)) for iteration, value in points.items() if value == value)

"""From what a user asks for to rows that were run and a report of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbone.common.errors import ConfigError, DataError, RunError
from backbone.common.files import write_json, write_text
from backbone.engine.config import check_pairs
from backbone.engine.scale import scale_schedule
from backbone.weights import resolve

from .markdown import markdown
from .page import page
from .records import different, gather, read_run
from .rows import Details, Record, Row, Step, Table, choose
from .runner import MISTAKE, Calls, Outcome, Runner
from .schedule import shorten
from .summary import to_json

DEFAULT_OUTPUT = Path("output/reproduce")


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        rows: names of rows to run; all for none. The report shows all rows of the table.
        output: holds runs/<config>, which tables share, and table<N>.md and .html.
        scale: length of every schedule, of the config's.
        flags: passed on to every command.
        overrides: KEY, VALUE, ... of every row.
        weights: files of pretrained weights, by architecture.
        json: file for the figures.
    """

    table: Table
    rows: tuple[str, ...] = ()
    data_root: Path | None = None
    output: Path | None = None
    scale: float = 1.0
    flags: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    weights: dict[str, str] = field(default_factory=dict)
    jobs: int = 1
    report_only: bool = False
    json: Path | None = None

    @property
    def folder(self) -> Path:
        """The output folder. Shortened runs have one of their own, so that they never pass for whole ones."""
        if self.output is not None:
            return self.output
        return DEFAULT_OUTPUT if self.scale == 1 else Path(f"{DEFAULT_OUTPUT}_scale_{self.scale:g}")

    @property
    def runs(self) -> Path:
        return self.folder / "runs"


def reproduce(request: Request, say: Callable[[str], None]) -> bool:
    """Run what the rows lack, gather their records and write the report; return whether no row failed.

    Raises:
        ConfigError, DataError: a flag or a key is wrong, the data root does not exist, or a run in the folder is of
            another config; nothing was run.
        RunError: each row that was tried ended for one mistake of the user's, such as data that is not there.
    """
    rows = choose(request.table, request.rows)
    calls = make_calls(request, rows)
    outcomes: list[Outcome] = []
    if not request.report_only:
        outcomes = Runner(calls, say, jobs=request.jobs).run(rows)
        if outcomes and {outcome.status for outcome in outcomes} == {MISTAKE} and _one_message(outcomes):
            raise RunError(f"{', '.join(outcome.row.name for outcome in outcomes)}: {outcomes[0].message}")
    failures = {outcome.row.name: outcome for outcome in outcomes if outcome.status}
    records = [_with_failure(gather(row, request.runs), failures.get(row.name)) for row in request.table.rows]
    for path in write_reports(request, records):
        say(f"report       {path}")
    for outcome in failures.values():
        say(f"failed       {outcome.row.name}: {outcome.message} (status {outcome.status})")
    return not failures


def _one_message(outcomes: Sequence[Outcome]) -> bool:
    return len({outcome.message for outcome in outcomes}) == 1


def _with_failure(record: Record, outcome: Outcome | None) -> Record:
    if outcome is None:
        return record
    return dataclasses.replace(record, failure=f"{outcome.message} (status {outcome.status})")


def write_reports(request: Request, records: Sequence[Record]) -> list[Path]:
    """Write table<N>.md and table<N>.html into the output folder, and the JSON file if one is asked for."""
    base = request.folder / f"table{request.table.number}"
    files = [base.with_suffix(".md"), base.with_suffix(".html")]
    details = request.table.details(records, request.runs) if request.table.details else Details()
    write_text(files[0], markdown(request.table, records, details))
    write_text(files[1], page(request.table, records, details))
    if request.json is not None:
        write_json(request.json, to_json(request.table, records))
        files.append(request.json)
    return files


def make_calls(request: Request, rows: Sequence[Row]) -> Calls:
    """Check what can be known before anything runs, and return how the commands are made.

    Raises:
        ConfigError: a key or a value is wrong, a file of weights is not there, or a run in the folder is of another
            config.
        DataError: the data root does not exist.
    """
    check_pairs(request.overrides)
    if request.data_root is not None and not request.data_root.exists():
        raise DataError(f"--data-root {request.data_root}: does not exist")
    weights = _check_weights(request)
    root = () if request.data_root is None else ("--data-root", str(request.data_root))
    train = {}
    for row in rows:
        for step in row.trainings:
            overrides = resolved(row, step, request)
            if not request.report_only:
                _check_run(row, step, request, overrides)
            train[row.config_of(step)] = tuple(map(str, overrides))
    flags = (*root, *request.flags)
    return Calls(runs=request.runs, flags=flags, train=train, test=request.overrides, weights=weights)


def _check_weights(request: Request) -> dict[str, str]:
    networks = {step.network for row in request.table.rows for step in row.trainings} - {""}
    for network, path in request.weights.items():
        if network not in networks:
            line = f"; one of {', '.join(sorted(networks))}" if networks else ": its rows start from random weights"
            raise ConfigError(f"--weights {network}={path}: no network of Table {request.table.number}{line}")
        if not resolve(path).exists():
            raise ConfigError(f"--weights {network}={path}: no such file; give the pretrained weights of {network}")
    return dict(request.weights)


def resolved(row: Row, step: Step, request: Request) -> list[object]:
    """Return the overrides of a training: the user's, and those of a shortened schedule."""
    given = set(request.overrides[::2])
    if request.scale == 1:
        return list(request.overrides)
    config, _ = scale_schedule(row.kind.load(row.config_of(step), request.overrides), given)
    return [*request.overrides, *shorten(config, request.scale, given)]


def _check_run(row: Row, step: Step, request: Request, overrides: Sequence[object]) -> None:
    expected = _expected(row, step, [*overrides, *step.overrides])
    run = read_run(request.runs / step.folder)
    if run.config is None:
        return
    found = different(run.config, expected, row.kind.free_keys)
    if found:
        shown = ", ".join(f"{key} {ours} (now {theirs})" for key, ours, theirs in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(
            f"{run.folder} is a run of another config: {shown}{more}; give the flags that it was begun with, another "
            "--output-dir, or --report-only"
        )


def _expected(row: Row, step: Step, overrides: Sequence[object]) -> Any:
    return scale_schedule(row.kind.load(row.config_of(step), overrides), set(overrides[::2]))[0]

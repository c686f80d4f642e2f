"""A table's records in words: what Markdown, page and JSON show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from backbone.common.text import count

from .rows import DONE, FOR_SERVER, NOT_RUN, UNFINISHED, UNTESTED, Figure, Record, Row, Table

# Of the versions in results.json, those that decide about numbers and speed.
VERSIONS = ("python", "torch", "torchvision", "detectron2")
NOTHING = "-"
# Of the normal distribution, for an interval of 95 %.
Z = 1.96


def headline(table: Table) -> str:
    """Return the title of a report."""
    return f"Table {table.number} of the paper: {table.caption}"


def summary(records: Sequence[Record]) -> str:
    """Return in a sentence how much of the table was measured."""
    cited = [record for record in records if not record.row.paper_only_curve]
    done = sum(record.state == DONE for record in cited)
    waiting = sum(record.state == FOR_SERVER for record in cited)
    text = f"{done} of {count(len(cited), 'row')} with a figure in the paper measured"
    text += f", {waiting} more with results for an evaluation server" if waiting else ""
    ended = [record for record in records if record.state in (DONE, FOR_SERVER)]
    short = sorted({share_text(record) for record in ended} - {""})
    text += f"; with shortened or changed schedules among them: {', '.join(short)}." if short else "."
    measured = any(half_interval(record, figure) for record in records for figure in record.row.figures)
    return f"{text} ± is the 95 % interval on so many test images." if measured else text


def results_table(table: Table, records: Sequence[Record]) -> tuple[list[list[str]], list[str]]:
    """Return rows and header: paper against measured, in per cent, the difference behind the measured value."""
    names = list(dict.fromkeys(figure.name for row in table.rows for figure in row.figures))
    header = ["row", *(part for name in names for part in (f"paper {name}", f"measured {name}"))]
    rows = []
    for record in records:
        figures = {figure.name: figure for figure in record.row.figures}
        cells = [part for name in names for part in _figure_cells(record, figures.get(name))]
        images = f"{record.images:,}" if record.images else NOTHING
        rows.append([record.row.name, *cells, images, state_text(record)])
    return rows, [*header, "test images", "run"]


def _figure_cells(record: Record, figure: Figure | None) -> tuple[str, str]:
    if figure is None:
        return NOTHING, NOTHING
    paper = NOTHING if figure.paper is None else f"{figure.paper:.2f}"
    if figure.name in record.measured:
        value = 100 * record.measured[figure.name]
        difference = "" if figure.paper is None else f" ({value - figure.paper:+.2f})"
        spread = half_interval(record, figure)
        return paper, f"{value:.2f}{'' if spread is None else f' ± {spread:.2f}'}{difference}"
    return paper, "server" if record.state == FOR_SERVER else NOTHING


def half_interval(record: Record, figure: Figure) -> float | None:
    """Return half of the 95 % interval (Wilson's) of an error on so many test images, in points of per cent."""
    if not (figure.of_images and record.images and figure.name in record.measured):
        return None
    share, images = record.measured[figure.name], record.images
    return 100 * Z / (1 + Z**2 / images) * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))


def is_within(record: Record, figure: Figure) -> bool | None:
    """Whether the paper's figure lies in the interval of the measured one; None where one of them is not there."""
    spread = half_interval(record, figure)
    if spread is None or figure.paper is None:
        return None
    return abs(100 * record.measured[figure.name] - figure.paper) <= spread


def tolerance(records: Sequence[Record]) -> str:
    """Return in a sentence which rows have the paper's figures in their intervals, and which have not; "" of none."""
    named: dict[bool, list[str]] = {True: [], False: []}
    for record in records:
        inside = [is_within(record, figure) for figure in record.row.figures]
        if not all(value is None for value in inside):
            named[False not in inside].append(record.row.name)
    texts = ("The paper's figure is within the interval", "It is outside")
    parts = [f"{text}: {', '.join(named[key])}." for text, key in zip(texts, (True, False)) if named[key]]
    return " ".join(parts)


def seeds_text(record: Record) -> str:
    """Return ", best of 5 seeds, mean 6.60 ± 0.14" of a row that the paper ran several times; else ""."""
    if not record.seeds:
        return ""
    errors = [100 * value for value in record.seeds]
    wanted = 1 + len(record.row.repeats)
    made = str(wanted) if len(errors) == wanted else f"{len(errors)} of {wanted}"
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f", best of {made} seeds, mean {statistics.fmean(errors):.2f}{spread} (paper: {record.row.best_of})"


def share_text(record: Record) -> str:
    """Return "1 % schedule" of a run whose schedule is not its config's, else ""."""
    share = record.schedule_share
    return "" if share is None or abs(share - 1) < 0.001 else f"{100 * share:.3g} % schedule"


def state_text(record: Record) -> str:
    """Return where the run of a row stands."""
    share = f" ({share_text(record)})" if share_text(record) else ""
    texts = {
        NOT_RUN: "not run",
        UNFINISHED: f"stopped at iteration {record.iteration:,} of {record.total:,}{share}, or still running",
        FOR_SERVER: f"{count(record.iteration, 'iteration')}{share}, {record.row.server} for the evaluation server",
        UNTESTED: f"{count(record.iteration, 'iteration')}{share}, not tested as the table asks",
        DONE: f"{count(record.iteration, 'iteration')}{share}{seeds_text(record)}",
    }
    changed = ", not as in the config (below)" if record.changes else ""
    return texts[record.state] + changed + (f"; failed: {record.failure}" if record.failure else "")


def runs_table(records: Sequence[Record]) -> tuple[list[list[str]], list[str]]:
    """Return rows and header: how and where the rows that have a run were made."""
    rows = [
        [
            record.row.name,
            NOTHING if record.seed is None else str(record.seed),
            str(record.made.get("device") or NOTHING),
            _versions(record),
            _date(record),
            record.data or NOTHING,
            _folder(record),
        ]
        for record in records
        if record.state != NOT_RUN
    ]
    header = ["row", "seed", "device", "versions", "date (UTC)", "data", "run folder"]
    if any(record.row.kind.weights_key for record in records):
        begun = [record for record in records if record.state != NOT_RUN]
        rows = [[*row, record.weights or "none: random"] for row, record in zip(rows, begun)]
        header.append("initial weights")
    return rows, header


def _folder(record: Record) -> str:
    if not record.row.test_only:
        return str(record.folder)
    return f"{record.folder.parent / record.row.result_folder}, weights of {record.folder}"


def _versions(record: Record) -> str:
    versions = record.made.get("versions") or {}
    return ", ".join(f"{name} {versions[name]}" for name in VERSIONS if versions.get(name)) or NOTHING


def _date(record: Record) -> str:
    """Return "2026-01-02 03:04" (UTC) of an ISO date."""
    return str(record.made.get("date") or NOTHING)[:16].replace("T", " ")


def notes(records: Sequence[Record]) -> list[str]:
    """Return a line for each row that was run otherwise than its config file says."""
    return [
        f"{record.row.name}: otherwise than in {_configs(record.row)}: {'; '.join(record.changes)}"
        for record in records
        if record.changes
    ]


def _configs(row: Row) -> str:
    trained = row.config_of(row.train)
    return f"{trained}, tested as {row.config}" if row.test_only else trained


def to_json(table: Table, records: Sequence[Record]) -> dict[str, Any]:
    """Return the report as plain data; figures in per cent as the paper prints them, null where there is none."""
    return {"table": table.number, "caption": table.caption, "rows": [_row_json(record) for record in records]}


def _row_json(record: Record) -> dict[str, Any]:
    return {
        "row": record.row.name,
        "config": record.row.config,
        "state": record.state,
        "failure": record.failure or None,
        "figures": {
            figure.name: {
                "paper": figure.paper,
                "measured": round(100 * record.measured[figure.name], 4) if figure.name in record.measured else None,
            }
            for figure in record.row.figures
        },
        "half_intervals": {
            figure.name: round(spread, 4)
            for figure in record.row.figures
            if (spread := half_interval(record, figure)) is not None
        },
        "seeds": [round(100 * value, 4) for value in record.seeds],
        "images": record.images,
        "iteration": record.iteration,
        "iterations": record.total or None,
        "schedule_share": record.schedule_share,
        "seed": record.seed,
        "changes": list(record.changes),
        "device": record.made.get("device"),
        "versions": record.made.get("versions"),
        "date": record.made.get("date"),
        "command": record.made.get("command"),
        "data": record.data or None,
        "weights": record.weights or None,
        "folder": str(record.folder),
    }

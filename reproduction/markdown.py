"""The report of a table as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from backbone.common.text import table as text_table

from .rows import NO_DETAILS, Details, Record, Table
from .summary import headline, notes, results_table, runs_table, summary, tolerance


def markdown(table: Table, records: Sequence[Record], details: Details = NO_DETAILS) -> str:
    """Return paper against measured, the runs behind it, and what they had otherwise than their configs."""
    parts = [f"# {headline(table)}", f"Paper against measured, in per cent. {summary(records)}"]
    parts += filter(None, (_table(*results_table(table, records)), tolerance(records)))
    for title, rows, header in details.tables:
        parts += [f"## {title}", _table(rows, header)]
    rows, header = runs_table(records)
    if rows:
        parts += ["## Runs", _table(rows, header)]
    message = notes(records)
    if message:
        parts += ["## Not as in the config", "\n".join(f"- {_safe(note)}" for note in message)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    # Paths and the files for evaluation servers are of use in whole alone.
    return text_table(rows, header, limit=None)


def _safe(text: str) -> str:
    """Return text of one line that opens no tag."""
    return " ".join(text.split()).replace("<", "&lt;")

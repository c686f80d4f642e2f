"""The report of a table as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from backbone.common.pages.document import document, json_for_script

from .chart import Scale, Series, chart_data, draw, fit_scale, thin_out
from .page_parts import SCRIPT, STYLE
from .rows import NO_DETAILS, Details, Panel, Record, Table
from .summary import headline, notes, results_table, runs_table, summary

COLORS = 8


def page(table: Table, records: Sequence[Record], details: Details = NO_DETAILS) -> str:
    """Return the page: paper against measured, the curves, the runs and their deviations from the configs."""
    rows, header = results_table(table, records)
    parts = [_table(rows, header, measured=True), *_drawings(table, records)]
    for title, rows, header in details.tables:
        parts += [f"<h2>{escape(title)}</h2>", _table(rows, header, measured=True)]
    for title, section in details.sections:
        parts += [f"<h2>{escape(title)}</h2>", section]
    rows, header = runs_table(records)
    if rows:
        parts += ["<h2>Runs</h2>", _table(rows, header)]
    text = notes(records)
    if text:
        parts += ["<h2>Not as in the config</h2>", f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in text)}</ul>"]
    parts.insert(0, f"<p>Paper against measured, in per cent. {escape(summary(records))}</p>")
    return document(headline(table), "\n".join(parts), style=STYLE + details.style, script=SCRIPT)


def _table(rows: Sequence[Sequence[str]], header: Sequence[str], *, measured: bool = False) -> str:
    head = "".join(f"<th{_kind(name, measured)}>{escape(name)}</th>" for name in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td{_kind(name, measured)}>{escape(cell)}</td>" for name, cell in zip(header, row)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _kind(name: str, measured: bool) -> str:
    if name.startswith("date"):
        return ' class="date"'
    return ' class="number"' if measured and name not in ("row", "run", "class") else ""


def _drawings(table: Table, records: Sequence[Record]) -> list[str]:
    by_name = {record.row.name: record for record in records}
    members = list(dict.fromkeys(row.member for row in sorted(table.rows, key=lambda row: _member_order(row.member))))
    colors = {row.name: members.index(row.member) % COLORS for row in table.rows}
    parts, number = [], 0
    for caption, panels in table.drawings.items():
        shown = [(panel, _series(panel, by_name, colors)) for panel in panels]
        shown = [(panel, series) for panel, series in shown if series or not panel.optional]
        drawn = {line.name for _, series in shown for line in series}
        total = max((by_name[name].total for name in drawn), default=0)
        scale = fit_scale([line for _, series in shown for line in series], total)
        figures = []
        for panel, series in shown:
            drops = sorted({at for line in series for at in by_name[line.name].drops})
            figures.append(_figure(panel, series, scale, number, table.curves_axis, drops))
            number += 1
        parts += [f"<h2>{escape(caption)}</h2>", f'<div class="panels">{"".join(figures)}</div>']
    if parts:
        parts.append(f'<p class="note">{escape(table.curves_note)} Point at a chart for values.</p>')
    return parts


def _member_order(member: str) -> tuple[int, str]:
    depth, _, option = member.partition(" ")
    return (int(depth) if depth.isdecimal() else 0, option)


def _series(panel: Panel, records: dict[str, Record], colors: dict[str, int]) -> list[Series]:
    both = len(panel.curves) > 1
    return [
        Series(name, colors[name], both and curve == "train", [(at, 100 * value) for at, value in thin_out(points)])
        for name in panel.rows
        if name in records
        for curve in panel.curves
        if (points := records[name].curves.get(curve))
    ]


def _figure(panel: Panel, series: list[Series], scale: Scale, number: int, axis: str, drops: Sequence[int]) -> str:
    empty = f"not run: {', '.join(panel.rows)}" if panel.rows else "no such row"
    svg = draw(panel.title, series, scale, axis=axis, number=number, empty="not run", drops=drops)
    data = json_for_script(chart_data(series, scale))
    # One entry a row: of its test curve, where it has one.
    lines = {line.name: line for line in sorted(series, key=lambda line: not line.dashed)}
    legend = "".join(_legend_entry(lines[name]) for name in panel.rows if name in lines) or f"<li>{escape(empty)}</li>"
    return (
        f'<figure class="chart">{svg}<ul class="legend">{legend}</ul>'
        f'<script type="application/json">{data}</script></figure>'
    )


def _legend_entry(line: Series) -> str:
    last = f"{line.points[-1][1]:.2f} %"
    return f'<li><span class="swatch c{line.color}"></span>{escape(line.name)} <span class="last">{last}</span></li>'

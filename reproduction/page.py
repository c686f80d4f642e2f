"""The report of a table as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from backbone.common.pages.chart import Reference, Scale, Series, chart_data, draw, fit_scale, thin_out
from backbone.common.pages.chart_parts import SCRIPT, STYLE
from backbone.common.pages.document import document, json_for_script

from .rows import NO_DETAILS, Details, Figure, Panel, Record, Table
from .summary import headline, is_within, notes, results_table, runs_table, summary, tolerance

COLORS = 8


def page(table: Table, records: Sequence[Record], details: Details = NO_DETAILS) -> str:
    """Return the page: paper against measured, the curves, the runs and their deviations from the configs."""
    rows, header = results_table(table, records)
    parts = [_table(rows, header, measured=True, marks=_marks(records)), *_drawings(table, records)]
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
    inside = tolerance(records)
    if inside:
        parts.insert(1, f'<p class="note">✓ ✗ {escape(inside)}</p>')
    parts.insert(0, f"<p>Paper against measured, in per cent. {escape(summary(records))}</p>")
    return document(headline(table), "\n".join(parts), style=STYLE + details.style, script=SCRIPT)


# {(name of a row, heading): class of its cell}.
Marks = dict[tuple[str, str], str]
# By whether the paper's figure lies in the interval of the measured one.
_MARKS = {True: "within", False: "outside"}


def _marks(records: Sequence[Record]) -> Marks:
    """Return which measured figures have the paper's in their interval, and which have not."""
    return {
        (record.row.name, f"measured {figure.name}"): _MARKS[inside]
        for record in records
        for figure in record.row.figures
        if (inside := is_within(record, figure)) is not None
    }


def _table(
    rows: Sequence[Sequence[str]], header: Sequence[str], *, measured: bool = False, marks: Marks | None = None
) -> str:
    head = "".join(f"<th{_kind(name, measured)}>{escape(name)}</th>" for name in header)
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{_kind(name, measured, (marks or {}).get((row[0], name), ''))}>{escape(cell)}</td>"
            for name, cell in zip(header, row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _kind(name: str, measured: bool, mark: str = "") -> str:
    if name.startswith("date"):
        return ' class="date"'
    return (
        f' class="{" ".join(filter(None, ("number", mark)))}"'
        if measured and name not in ("row", "run", "class")
        else ""
    )


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
            figures.append(
                _figure(panel, series, scale, number, table.curves_axis, drops, _references(series, by_name), by_name)
            )
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


def _references(series: list[Series], records: dict[str, Record]) -> list[Reference]:
    """Return the paper's figures of the rows whose test curves are shown, where they are of the same protocol."""
    found = {}
    for line in series:
        row = records[line.name].row
        figure = _figure_of_curve(row.figures, row.curves.get("test", ""))
        if not line.dashed and figure is not None and figure.paper is not None:
            found[line.name] = Reference(line.name, line.color, figure.paper)
    return list(found.values())


def _figure_of_curve(figures: Sequence[Figure], key: str) -> Figure | None:
    return next((figure for figure in figures if "/".join(figure.path) == key), None)


def _figure(
    panel: Panel,
    series: list[Series],
    scale: Scale,
    number: int,
    axis: str,
    drops: Sequence[int],
    references: Sequence[Reference],
    records: dict[str, Record],
) -> str:
    empty = f"not run: {', '.join(panel.rows)}" if panel.rows else "no such row"
    svg = draw(
        panel.title, series, scale, axis=axis, number=number, empty="not run", drops=drops, references=references
    )
    data = json_for_script(chart_data(series, scale))
    # One entry a row: of its test curve, where it has one.
    lines = {line.name: line for line in sorted(series, key=lambda line: not line.dashed)}
    paper = {one.name: (f"{one.value:.2f} %", _mark_of_curve(records[one.name])) for one in references}
    legend = (
        "".join(_legend_entry(lines[name], paper) for name in panel.rows if name in lines)
        or f"<li>{escape(empty)}</li>"
    )
    return (
        f'<figure class="chart">{svg}<ul class="legend">{legend}</ul>'
        f'<script type="application/json">{data}</script></figure>'
    )


def _mark_of_curve(record: Record) -> str:
    """Return the mark of the figure whose curve a panel shows; "" where it was not measured."""
    figure = _figure_of_curve(record.row.figures, record.row.curves.get("test", ""))
    inside = None if figure is None else is_within(record, figure)
    return "" if inside is None else _MARKS[inside]


def _legend_entry(line: Series, paper: dict[str, tuple[str, str]]) -> str:
    """Return a row's last value, and the paper's with the mark that says whether it is within the tolerance."""
    figure, mark = paper.get(line.name, ("", ""))
    last = f"{line.points[-1][1]:.2f} %" + (f", paper {figure}" if figure else "")
    kind = f"last {mark}" if mark else "last"
    return f'<li><span class="swatch c{line.color}"></span>{escape(line.name)} <span class="{kind}">{last}</span></li>'

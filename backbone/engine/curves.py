"""The curves of runs as HTML pages: curves.html of one, and the page that compares several."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from ..common.files import write_text
from ..common.pages.chart import HEADROOM, Series, chart_data, draw, fit_scale, thin_out
from ..common.pages.chart_parts import SCRIPT, STYLE
from ..common.pages.document import document, json_for_script
from . import comparison, distributed
from .comparison import FinishedRun, figure_names, read_run
from .hooks import Hook, Run
from .record import LOGGER, LOSS

log = logging.getLogger(LOGGER)
PAGE = "curves.html"
COLORS = 8
# What a line of training has beside its losses, with the name of its chart.
OTHERS = {"lr": "learning rate", "images_per_second": "images per second"}
_SLIDER = '<p><label>Smoothing <input id="smoothing" type="range" min="0" max="0.98" step="0.02" value="0"></label></p>'


def write_curves(folder: Path) -> None:
    """Write curves.html from what metrics.jsonl in a run folder holds now. A page that fails ends no training."""
    try:
        write_text(folder / PAGE, curves_page(read_run(folder, folder.name)))
    except Exception as error:
        log.warning("%s could not be written: %s", folder / PAGE, error)


class CurvesPage(Hook):
    """Keeps curves.html up to date: after each evaluation on the way, and where the run ends before its last step.

    At its end, a run writes the page when it has its results (`TaskRun.finish`).
    """

    def after_evaluation(self, trainer: Run) -> None:
        if distributed.is_main() and not trainer.state.finished:
            write_curves(trainer.settings.folder)

    def after_run(self, trainer: Run) -> None:
        self.after_evaluation(trainer)


def curves_page(run: FinishedRun) -> str:
    """Return the page of one run: its losses, learning rate and figures."""
    names = list(dict.fromkeys(name for line in run.lines if LOSS in line for name in line))
    losses = [name for name in names if "loss" in name]
    if len(losses) == 2:
        # The total is the only loss.
        losses.remove(LOSS)
    # Of a test set, beside the one that training shows.
    tests = [line for line in run.lines if LOSS not in line]
    tested = sorted({name for line in tests for name in line if name.endswith((f"/{LOSS}", "/loss"))})
    shown = {"losses": {name: run.curve(name) for name in (*losses, *tested)}} if losses else {}
    for kind, metrics in _metrics(run).items():
        shown[kind] = {name: run.curve(f"{kind}/{name}") for name in metrics}
    # What a step has beside its losses comes last: there is much of it, and few look for it.
    rest = [name for name in names if name not in (LOSS, *losses, "iteration", "data_share")]
    for name in sorted(rest, key=lambda name: name not in OTHERS):
        shown[OTHERS.get(name, name)] = {name: run.curve(name)}
    charts = [_chart(title, curves, number) for number, (title, curves) in enumerate(shown.items())]
    parts = [f"<p>{escape(run.state)}</p>", _SLIDER, f'<div class="panels">{"".join(charts)}</div>']
    return document(f"Curves of {run.name}", "\n".join(parts), style=STYLE, script=SCRIPT)


def comparison_page(runs: Sequence[FinishedRun]) -> str:
    """Return the page of several runs: tables, then the loss, the rate and each main figure of all in one chart."""
    charts = []
    for name, title in (
        (LOSS, "loss"),
        ("lr", "learning rate"),
        *((name, name) for name in figure_names(runs, most=8)),
    ):
        charts.append(_chart(title, {run.name: run.curve(name) for run in runs}, len(charts)))
    header, rows = comparison.differences(runs)
    parts = [_table(*comparison.overview(runs)), _SLIDER, f'<div class="panels">{"".join(charts)}</div>']
    if rows:
        parts += ["<h2>Keys that differ</h2>", _table(header, rows)]
    header, rows = comparison.worst_classes(runs)
    if rows:
        parts += ["<h2>Worst classes</h2>", _table(header, rows)]
    return document("Runs", "\n".join(parts), style=STYLE, script=SCRIPT)


def _metrics(run: FinishedRun) -> dict[str, list[str]]:
    """Return the metrics of each kind of evaluation, without those of single classes."""
    found: dict[str, list[str]] = {}
    for line in (line for line in run.lines if LOSS not in line):
        for name in line:
            kind, _, metric = name.partition("/")
            single = "-" in metric or metric.startswith("AP_") or metric == "images"
            if metric and not single and metric not in found.setdefault(kind, []):
                found[kind].append(metric)
    return {kind: metrics for kind, metrics in found.items() if metrics}


def _chart(title: str, curves: dict[str, list[tuple[int, float]]], number: int) -> str:
    series = [
        Series(name, index % COLORS, False, thin_out(points))
        for index, (name, points) in enumerate(curves.items())
        if points
    ]
    # The first losses would flatten all that follows.
    scale = fit_scale(series, 0, math.inf, HEADROOM if "loss" in title else math.inf)
    if scale.low > 0:
        scale = replace(scale, low=0.0)
    svg = draw(title, series, scale, axis="", number=number, empty="nothing measured")
    data = json_for_script(chart_data(series, scale, unit="", digits=6 if scale.high < 0.01 else 4))
    legend = "".join(_legend(line) for line in series)
    return (
        f'<figure class="chart">{svg}<ul class="legend">{legend}</ul>'
        f'<script type="application/json">{data}</script></figure>'
    )


def _legend(line: Series) -> str:
    last = f"{line.points[-1][1]:.4g}"
    return f'<li><span class="swatch c{line.color}"></span>{escape(line.name)} <span class="last">{last}</span></li>'


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    numbers = [all(value is None or isinstance(value, (int, float)) for value in column) for column in zip(*rows)]

    def cells(tag: str, values: Sequence[Any]) -> str:
        kinds = [' class="number"' if number else "" for number in numbers]
        return "".join(f"<{tag}{kind}>{escape(_text(value))}</{tag}>" for value, kind in zip(values, kinds))

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{cells("th", header)}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)

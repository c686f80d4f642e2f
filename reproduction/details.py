"""What the report of a detection table shows beside the figures: classes, precision-recall curves and a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from backbone.common.errors import UserError
from detection.analysis import Analysis, analyze
from detection.analysis.charts import curve_chart, curve_data
from detection.analysis.errors import MEANING
from detection.analysis.gallery import best_images, shots, worst_images
from detection.analysis.page_style import SHOT_STYLE

from .cases import prediction_files, read_case
from .classes import PAPER, classes_table
from .records import read_run
from .rows import DONE, Details, Record

IMAGES = 4
"""Best and worst ones, each, of every row."""
COLORS = 8
# Positions in curve_data's curves of IoU .5 and .75.
CHARTS = ((0, "IoU .5"), (1, "IoU .75"))
STYLE = (
    SHOT_STYLE
    + """.shots { grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); }
.shot .box.caption { display: inline; }
"""
)
Curves = dict[str, dict[str, list[list[int | None]]]]


def details(records: Sequence[Record], runs: Path, *, number: str) -> Details:
    """Return the AP of each class (Tables 10 and 11), precision-recall curves, and the best and worst images.

    Args:
        records: of the table's rows.
        runs: folder of the run folders.
    """
    curves: Curves = {}
    galleries, notes = [], []
    for record in records:
        if record.state != DONE:
            continue
        config = read_run(record.folder).config or {}
        for name, path in prediction_files(runs / record.row.result_folder).items():
            try:
                case = read_case(name, path, config)
                if case is None:
                    continue
                # One at a time: the detections of a whole data set are large.
                analysis = analyze(case)
                galleries.append(_gallery(f"{record.row.name}, {name}", analysis))
            except UserError as error:
                notes.append(f"{record.row.name}: no curves: {error}")
                continue
            curves.setdefault(name, {})[record.row.name] = curve_data(analysis)["pr"][0]
    tables = (("AP50 of each class, in per cent", *classes_table(number, records, runs)),) if number in PAPER else ()
    return Details(tables, _sections(curves, galleries, notes), STYLE)


def _sections(curves: Curves, galleries: list[str], notes: list[str]) -> tuple[tuple[str, str], ...]:
    line = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    if not curves:
        return (("Precision and recall", line or '<p class="note">No row has detections with figures yet.</p>'),)
    charts = "".join(_charts(name, rows) for name, rows in curves.items())
    note = (
        '<p class="note">Mean over the classes with objects, by COCO’s rules: the highest precision at each recall or '
        f"beyond, at most 100 detections of an image and class.</p>{line}"
    )
    kinds = "".join(
        f'<li><span class="dot k{key}"></span>{escape(title)}</li>'
        for key, title in [
            ("Truth", "object"),
            ("Right", "right"),
            *((key, title) for key, title, _ in MEANING.values()),
        ]
    )
    head = (
        '<p class="note">Detections from the score of best F1 on. Best: right detections outweigh errors most; worst: '
        f'the heaviest errors.</p><ul class="legend">{kinds}</ul>'
    )
    return (("Precision and recall", note + charts), ("Best and worst images", head + "".join(galleries)))


def _charts(name: str, rows: dict[str, list[list[int | None]]]) -> str:
    colors = {row: place % COLORS for place, row in enumerate(rows)}
    legend = "".join(f'<li><span class="swatch c{color}"></span>{escape(row)}</li>' for row, color in colors.items())
    figures = "".join(
        '<figure class="chart">'
        + curve_chart("pr", f"{name}, {title}", ("recall", "precision"), [one[iou] for one in rows.values()], (0, 1))
        + f'<ul class="legend">{legend}</ul></figure>'
        for iou, title in CHARTS
    )
    return f'<div class="panels">{figures}</div>'


def _gallery(title: str, analysis: Analysis) -> str:
    parts = [f"<h3>{escape(title)}, score ≥ {analysis.score:.3g}</h3>"]
    chosen: list[tuple[str, Any]] = [
        ("best", best_images(analysis, IMAGES)),
        ("worst", worst_images(analysis, IMAGES)),
    ]
    for name, images in chosen:
        parts.append(f"<h4>{name}</h4>")
        parts.append(shots(analysis, images) if images else '<p class="note">none</p>')
    return "".join(parts)

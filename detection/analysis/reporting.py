"""The error analysis as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from pathlib import Path

from backbone.common.files import write_text
from backbone.common.pages.document import json_for_script
from backbone.common.pages.report import report_page, tiles
from backbone.common.pages.tables import filter_field, percent
from backbone.common.text import count

from .analysis import Analysis
from .charts import PR_NAMES, SWEEP_NAMES, calibration_chart, curve_chart, curve_data
from .errors import MEANING
from .gallery import Gallery, gallery
from .page_script import SCRIPT
from .page_style import STYLE
from .scores import sweep
from .tables import OwnFigures, classes_table, confusions_table, kinds_table, matrix_table, scores_table, sizes_table


def write_report(
    path: str | Path, analysis: Analysis, *, title: str = "Error analysis", own: OwnFigures | None = None
) -> None:
    """Write the page; the same analysis gives the same bytes. `own` as in `report`.

    Raises:
        RunError: the file cannot be written.
        DataError: an image to be drawn cannot be read.
    """
    write_text(path, report(analysis, title=title, own=own))


def report(analysis: Analysis, *, title: str = "Error analysis", own: OwnFigures | None = None) -> str:
    """Return the page.

    Args:
        own: of the data set's own metric, which come first.

    Raises:
        DataError: an image to be drawn cannot be read.
    """
    images = gallery(analysis)
    sections = {
        "kinds": ("Kinds of error", _kinds(analysis, images)),
        "curves": ("Precision, recall and scores", _curves(analysis)),
        "sizes": ("AP by size", sizes_table(analysis)),
        "classes": ("AP and errors by class", _classes(analysis, images, own)),
        "confusion": ("Confusion between classes", _confusion(analysis, images)),
        "images": ("Images", _images(analysis, images)),
    }
    data = f'<script type="application/json" id="data">{json_for_script(curve_data(analysis))}</script>'
    return report_page(title, _head(analysis, own), sections, style=STYLE, script=SCRIPT, last=data)


def _head(analysis: Analysis, own: OwnFigures | None) -> str:
    case = analysis.case
    ignored = int(case.objects.ignored.sum())
    line = ", ".join(
        [
            count(len(case.image_names), "image"),
            count(len(case.class_names), "class", "classes"),
            count(len(case.objects) - ignored, "object") + (f" and {ignored:,} ignored" if ignored else ""),
            count(len(case.detections), "detection"),
        ]
    )
    figures = "Boxes, COCO’s figures in per cent"
    if own is not None:
        figures = f"Boxes, in per cent: first {escape(own.name)}’s figures, then COCO’s"
    return (
        f'<p class="first">{escape(analysis.costs)}</p>'
        f"<p>{line}. {figures}; at most 100 detections of each image and class count.</p>"
        f"{tiles(own.figures) if own is not None else ''}{tiles(analysis.summary())}"
    )


def _kinds(analysis: Analysis, images: Gallery) -> str:
    least = f"{analysis.score:.3g}"
    why = "with the best F1 at IoU .5" if analysis.score_chosen else "that was given"
    return (
        "<p>ΔAP50 is what AP at IoU .5 gains when the errors of one kind alone are mended: Cls and Loc detections "
        "become right, others are removed, missed objects are left out (TIDE, Bolya et al. 2020). The gains do not add "
        f"up: mending everything takes AP50 from {percent(analysis.errors.ap50)} to "
        f"{percent(analysis.errors.ap50_mended)}.</p>"
        f"{kinds_table(analysis, images)}"
        '<p class="note">“All scores” counts every detection, most of which a detector would not show. '
        f"{least} is the least score {why}; confusions, errors by class and the images are of detections with at least "
        "it. Choose a kind, a class or a cell of the matrix to see its images.</p>"
    )


def _curves(analysis: Analysis) -> str:
    data = curve_data(analysis)
    low, high = data["thresholds"]
    charts = [
        ("pr", "Precision at recall", ("recall", "precision"), (0.0, 1.0), PR_NAMES, None),
        ("sweep", "By least score, IoU .5", ("score ≥", ""), (low, high), SWEEP_NAMES, data["best"][0]),
    ]
    figures = "".join(
        f'<figure class="chart">{curve_chart(key, title, axes, data[key][0], span, best)}{_legend(names)}'
        '<p class="readout" aria-live="polite"></p></figure>'
        for key, title, axes, span, names, best in charts
    )
    if analysis.calibration is not None:
        figures += f'<figure class="chart">{calibration_chart(analysis.calibration)}</figure>'
    detections = analysis.case.detections
    least = [analysis.score]
    at = sweep(detections.scores, analysis.figures.outcome, int(analysis.wanted.sum()), least)
    return (
        '<p class="choice"><label>Curves of <select id="class"></select></label></p>'
        f'<div class="panels">{figures}<div>'
        f"<p>With score ≥ {analysis.score:.3g}: precision {percent(at.precision[0])}, recall {percent(at.recall[0])}, "
        f"F1 {percent(at.f1[0])}, all classes together at IoU .5.</p>"
        f"<details><summary>Precision, recall and F1 for other scores</summary>{scores_table(analysis)}</details>"
        "</div></div>"
    )


def _legend(names: tuple[str, ...]) -> str:
    items = "".join(f'<li><span class="swatch c{color}"></span>{name}</li>' for color, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def _classes(analysis: Analysis, images: Gallery, own: OwnFigures | None) -> str:
    kinds = ", ".join(name for name, _, _ in MEANING.values())
    return (
        f'<p class="note">{kinds}: number of errors with score ≥ {analysis.score:.3g}, false detections under the '
        "class that was detected, missed objects under their own. Best score: the least score with the best F1 of the "
        f"class. Choose a column’s name to sort.</p>"
        f"{filter_field('Find a class')}{classes_table(analysis, images, own)}"
    )


def _confusion(analysis: Analysis, images: Gallery) -> str:
    matrix = matrix_table(analysis, images)
    return (
        f'<p class="note">Detections with score ≥ {analysis.score:.3g} that overlap an object with IoU .5 or more. '
        "Each row of the matrix is in per cent of its objects; its last row is false detections on no free object, "
        "duplicates included.</p>"
        f"<h3>Most frequent</h3>{confusions_table(analysis, images)}"
        f"{f'<h3>Matrix</h3>{matrix}' if matrix else ''}"
    )


def _images(analysis: Analysis, images: Gallery) -> str:
    return (
        '<p class="note">The worst come first, by weight of errors: the scores of false detections (those of '
        f"{analysis.score:.3g} or more), and 1 for each missed object. Objects are green, missed ones dashed. "
        "Choose an image to enlarge it and to read its errors; the arrow keys go to the next and the previous one, Esc "
        f"closes it.</p>{images.html}"
    )

"""Tables of a report as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from .analysis import Analysis
from .errors import MEANING
from .precision import AREAS, AT_50, AT_75, mean
from .scores import sweep

NONE = "–"
MOST_CLASSES = 100
"""Rows of a confusion matrix: beyond, a page would hold millions of cells."""
MOST_CONFUSIONS = 15


def percent(value: float) -> str:
    """Return a fraction in per cent, with one decimal; a dash for NaN."""
    return NONE if value != value else f"{100 * value:.1f}"


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "", words: int = 1) -> str:
    """Return a table.

    Args:
        header, rows: HTML.
        kind: its class; "sortable" gives its header buttons.
        words: how many columns, the first ones, are text; numbers stand to the right.
    """
    names = [f'<button type="button">{name}</button>' if "sortable" in kind else name for name in header]
    head = "".join(f'<th scope="col"{_right(i, words)}>{name}</th>' for i, name in enumerate(names))
    body = "\n".join("<tr>" + "".join(_cell(i, cell, words) for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _right(column: int, words: int) -> str:
    return "" if column < words else ' class="number"'


def _cell(column: int, cell: str, words: int) -> str:
    return f'<th scope="row">{cell}</th>' if column == 0 else f"<td{_right(column, words)}>{cell}</td>"


def kinds_table(analysis: Analysis) -> str:
    """Return the kinds of error with their cost and number."""
    counts, shown = analysis.errors.counts(), analysis.shown_counts()
    errors = analysis.errors
    highest = max([*errors.gain.values(), errors.gain_false, errors.gain_missed, 1e-9])
    rows = [
        [
            f'<span class="dot k{name}"></span>{name}',
            f"{title}: {meaning}",
            f'<span class="bar k{name}" style="width:{_length(errors.gain[kind], highest)}px"></span>',
            percent(errors.gain[kind]),
            f"{counts[kind]:,}",
            f"{shown[kind]:,}",
        ]
        for kind, (name, title, meaning) in MEANING.items()
    ]
    for title, gain in (
        ("all false detections removed", errors.gain_false),
        ("all that is not found", errors.gain_missed),
    ):
        bar = f'<span class="bar kAll" style="width:{_length(gain, highest)}px"></span>'
        rows.append(["", title, bar, percent(gain), "", ""])
    header = ["kind", "what it is", "", "ΔAP50", "all scores", f"score ≥ {analysis.score:.3g}"]
    return html_table(header, rows, kind="kinds", words=3)


def _length(gain: float, highest: float) -> int:
    return 0 if gain != gain else round(120 * max(0.0, gain) / highest)


def sizes_table(analysis: Analysis) -> str:
    """Return AP and recall by the area of objects."""
    objects = analysis.case.objects
    areas = objects.areas[~objects.ignored]
    rows = []
    for place, (name, (low, high)) in enumerate(AREAS.items()):
        recall = mean(analysis.figures.recall[:, :, place, -1])
        aps = [analysis.figures.ap(iou, place) for iou in (slice(None), AT_50, AT_75)]
        number = int(((areas >= low) & (areas <= high)).sum())
        rows.append([name, f"{number:,}", *map(percent, aps), percent(recall)])
    return html_table(["area", "objects", "AP", "AP50", "AP75", "AR100"], rows)


def classes_table(analysis: Analysis) -> str:
    """Return AP by class and area, and the errors of each class."""
    figures, counts = analysis.figures, analysis.class_counts()
    rows = []
    for label, name in enumerate(analysis.case.class_names):
        aps = [figures.class_ap(label, iou) for iou in (slice(None), AT_50, AT_75)]
        aps += [figures.class_ap(label, area=place) for place in range(1, len(AREAS))]
        best = analysis.class_scores[label]
        rows.append(
            [
                escape(name),
                str(int(analysis.wanted[label])),
                *map(percent, [*aps, mean(figures.recall[:, label, 0, -1])]),
                NONE if best != best else f"{best:.2f}",
                *map(str, counts[label].tolist()),
            ]
        )
    header = ["class", "objects", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "best score"]
    return html_table([*header, *(name for name, _, _ in MEANING.values())], rows, kind="sortable dense")


def scores_table(analysis: Analysis) -> str:
    """Return precision, recall and F1 of all classes together for twenty least scores."""
    low, high = (float(analysis.sweep.thresholds[place]) for place in (0, -1))
    chosen = np.union1d(np.linspace(low, high, 21)[:-1], [analysis.score])
    detections = analysis.case.detections
    at = sweep(detections.scores, analysis.figures.outcome, int(analysis.wanted.sum()), chosen)
    rows = [
        [
            f"{threshold:.2f}" if threshold != analysis.score else f"<strong>{threshold:.3g}</strong>",
            f"{int((detections.scores >= threshold).sum()):,}",
            *map(percent, values),
        ]
        for threshold, *values in zip(at.thresholds.tolist(), at.precision, at.recall, at.f1)
    ]
    return html_table(["score ≥", "detections", "precision", "recall", "F1"], rows, words=0)


def confusions_table(analysis: Analysis) -> str:
    """Return the most frequent confusions."""
    names, parts = analysis.case.class_names, analysis.confusion.parts()
    rows = [
        [escape(names[truth]), escape(names[found]), str(number), percent(parts[truth, found])]
        for truth, found, number in analysis.confusion.most(MOST_CONFUSIONS)
    ]
    if not rows:
        return '<p class="note">No object is detected as another class.</p>'
    return html_table(["object", "detected as", "times", "% of the class"], rows, words=2)


def matrix_table(analysis: Analysis) -> str:
    """Return the confusion matrix, each row in per cent of its sum, coloured."""
    confusion, names = analysis.confusion, analysis.case.class_names
    chosen = _matrix_classes(confusion.matrix)
    rows = [*chosen.tolist(), len(names)]
    titles = [escape(name) for name in names]
    head = "".join(f'<th scope="col"><span>{name}</span></th>' for name in [*(titles[k] for k in chosen), "not found"])
    numbers, parts = confusion.matrix[np.ix_(rows, rows)], confusion.parts()[np.ix_(rows, rows)]
    # Background is nobody's object.
    body = "\n".join(
        f'<tr><th scope="row">{title}</th>{"".join(map(_matrix_cell, row_parts, row_numbers))}</tr>'
        for title, row_parts, row_numbers in zip(
            [*(titles[k] for k in chosen), "background"], parts.tolist(), numbers.tolist()
        )
    )
    left_out = len(names) - len(chosen)
    note = f'<p class="note">The {len(chosen)} classes with the most confusions.</p>' if left_out else ""
    return (
        f'{note}<div class="matrix" tabindex="0" role="region" aria-label="Confusion matrix"><table>\n'
        f'<thead><tr><th scope="col">object ↓ detected as →</th>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _matrix_cell(part: float, number: int) -> str:
    if not number:
        return "<td></td>"
    shown = f"{100 * part:.0f}" if part >= 0.005 else "·"
    strong = ' class="strong"' if part > 0.7 else ""
    return f'<td{strong} style="--v:{max(part, 0.03):.2f}" title="{number:,}">{shown}</td>'


def _matrix_classes(matrix: np.ndarray) -> np.ndarray:
    wrong = matrix[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    often = wrong.sum(axis=0) + wrong.sum(axis=1)
    return np.sort(np.argsort(-often, kind="stable")[:MOST_CLASSES])

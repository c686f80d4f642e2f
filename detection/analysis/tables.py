"""Tables of a report as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from backbone.common.pages import confusion as pages
from backbone.common.pages.tables import NONE, html_table, percent
from backbone.common.text import count

from .analysis import Analysis
from .errors import MEANING
from .gallery import Gallery
from .precision import AREAS, AT_50, AT_75, mean
from .scores import sweep


@dataclass(frozen=True)
class OwnFigures:
    """Figures of a data set's own metric, fractions: they stand before COCO's.

    Attributes:
        name: of the metric, over the column of `classes`.
        figures: by their names.
        classes: of each class; NaN without objects.
    """

    name: str
    figures: dict[str, float]
    classes: Sequence[float]


def kinds_table(analysis: Analysis, images: Gallery) -> str:
    """Return the kinds of error with their cost and number."""
    counts, shown = analysis.errors.counts(), analysis.shown_counts()
    errors = analysis.errors
    highest = max([*errors.gain.values(), errors.gain_false, errors.gain_missed, 1e-9])
    rows = [
        [
            f'<span class="dot k{name}"></span>{images.button(f"k{name}", name, f"{title} ({name})")}',
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


def classes_table(analysis: Analysis, images: Gallery, own: OwnFigures | None = None) -> str:
    """Return AP by class and area, and the errors of each class; classes without objects are folded."""
    figures, counts = analysis.figures, analysis.class_counts()
    header = ["class", "objects", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "best score"]
    header += [name for name, _, _ in MEANING.values()]
    if own is not None:
        header.insert(2, own.name)
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    for label, name in enumerate(analysis.case.class_names):
        aps = [figures.class_ap(label, iou) for iou in (slice(None), AT_50, AT_75)]
        aps += [figures.class_ap(label, area=place) for place in range(1, len(AREAS))]
        best = analysis.class_scores[label]
        rows[bool(analysis.wanted[label])].append(
            [
                images.button(f"c{label}", escape(name), f"errors of {name}"),
                str(int(analysis.wanted[label])),
                *([] if own is None else [percent(own.classes[label])]),
                *map(percent, [*aps, mean(figures.recall[:, label, 0, -1])]),
                NONE if best != best else f"{best:.2f}",
                *map(str, counts[label].tolist()),
            ]
        )
    shown = html_table(header, rows[True], kind="sortable dense") if rows[True] else ""
    if rows[False]:
        folded = [[row[0], *row[-len(MEANING) :]] for row in rows[False]]
        table = html_table([header[0], *header[-len(MEANING) :]], folded, kind="sortable dense")
        title = f"{count(len(folded), 'class', 'classes')} without objects"
        shown += f"<details><summary>{title}</summary>{table}</details>"
    return shown


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


def confusions_table(analysis: Analysis, images: Gallery) -> str:
    """Return the most frequent confusions."""
    header = ["object", "detected as", "times", "% of the class"]
    matrix, names = analysis.confusion.matrix, analysis.case.class_names
    shown = pages.confusions_table(matrix, names, header, _link(analysis, images))
    return shown or '<p class="note">No object is detected as another class.</p>'


def matrix_table(analysis: Analysis, images: Gallery) -> str:
    """Return the confusion matrix, each row in per cent of its sum, coloured; "" where no class is confused."""
    # Background is nobody's object.
    ends = ("background", "not found")
    matrix, names = analysis.confusion.matrix, analysis.case.class_names
    return pages.matrix_table(matrix, names, "object ↓ detected as →", ends, _link(analysis, images))


def _link(analysis: Analysis, images: Gallery) -> pages.Link:
    names = [*analysis.case.class_names, "background"]

    def link(row: int, column: int, words: str) -> str:
        found = "not found" if column == len(names) - 1 else f"detected as {names[column]}"
        return images.button(f"m{row}-{column}", words, f"{names[row]} {found}")

    return link

"""AP of each class in Tables 10 and 11: the paper's, and the measured ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backbone.engine.record import RESULTS
from detection.data.voc import VOC_CLASSES

from .records import read_results, value_in
from .rows import NOT_RUN, UNFINISHED, Record
from .summary import NOTHING

# He et al., Tables 10 and 11, AP at IoU .5 in %, the classes in the order of the alphabet. The figures
# agree with two public transcriptions, and each row's mean is its mAP.
PAPER = {
    "10": {
        "baseline VGG-16": (
            *(76.5, 79.0, 70.9, 65.5, 52.1, 83.1, 84.7, 86.4, 52.0, 81.9),
            *(65.7, 84.8, 84.6, 77.5, 76.7, 38.8, 73.6, 73.9, 83.0, 72.6),
        ),
        "baseline ResNet-101": (
            *(79.8, 80.7, 76.2, 68.3, 55.9, 85.1, 85.3, 89.8, 56.7, 87.8),
            *(69.4, 88.3, 88.9, 80.9, 78.4, 41.7, 78.6, 79.8, 85.3, 72.0),
        ),
        "baseline+++ ResNet-101": (
            *(90.0, 89.6, 87.8, 80.8, 76.1, 89.9, 89.9, 89.6, 75.5, 90.0),
            *(80.7, 89.6, 90.3, 89.1, 88.7, 65.4, 88.1, 85.6, 89.0, 86.8),
        ),
    },
    "11": {
        "baseline VGG-16": (
            *(84.9, 79.8, 74.3, 53.9, 49.8, 77.5, 75.9, 88.5, 45.6, 77.1),
            *(55.3, 86.9, 81.7, 80.9, 79.6, 40.1, 72.6, 60.9, 81.2, 61.5),
        ),
        "baseline ResNet-101": (
            *(86.5, 81.6, 77.2, 58.0, 51.0, 78.6, 76.6, 93.2, 48.6, 80.4),
            *(59.0, 92.1, 85.3, 84.8, 80.7, 48.1, 77.3, 66.5, 84.7, 65.6),
        ),
        "baseline+++ ResNet-101": (
            *(92.1, 88.4, 84.8, 75.9, 71.4, 86.3, 87.8, 94.2, 66.8, 89.4),
            *(69.2, 93.9, 91.9, 90.9, 89.6, 67.9, 88.2, 76.8, 90.3, 80.0),
        ),
    },
}


def classes_table(number: str, records: Sequence[Record], runs: Path) -> tuple[list[list[str]], list[str]]:
    """Return rows and header: AP50 of each class in per cent, paper against measured, of each row of the table."""
    header = ["class"]
    columns = []
    for record in records:
        name = record.row.name
        paper = PAPER[number].get(name)
        measured = _measured(record, runs)
        header += [f"paper {name}", f"measured {name}"]
        columns.append([f"{value:.1f}" for value in paper] if paper else [NOTHING] * len(VOC_CLASSES))
        columns.append([_cell(measured.get(label), paper and paper[place]) for place, label in enumerate(VOC_CLASSES)])
    return [[label, *cells] for label, *cells in zip(VOC_CLASSES, *columns)], header


def _measured(record: Record, runs: Path) -> dict[str, float]:
    """Return AP50 of each class that has objects, a share."""
    if record.state in (NOT_RUN, UNFINISHED):
        return {}
    results = read_results(runs / record.row.result_folder / RESULTS)
    classes = value_in(results, ("bbox", "per_class"))
    found = {name: value_in(classes, (name, "AP50")) for name in classes} if isinstance(classes, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, float) and value >= 0}


def _cell(value: float | None, paper: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{100 * value:.1f}" + ("" if paper is None else f" ({100 * value - paper:+.1f})")

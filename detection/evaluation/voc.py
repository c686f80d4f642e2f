"""PASCAL VOC's evaluation: AP by 11 points (2007) and by area (2010 and later), difficult objects ignored."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backbone.common.errors import DataError, UserError
from backbone.common.text import nearest, table

from ..data.voc import VOC_CLASSES, VocObjects, VocSplit, read_split
from .voc_detections import VocDetections, load_detections
from .voc_matching import Curve, curves

METRICS = ("voc07", "voc10")
AT_50, AT_75 = 0, 5
# 0, 0.1, ..., 1 with the rounding of the reference: 0.3 is 0.30000000000000004 there.
ELEVEN_POINTS = np.arange(0.0, 1.1, 0.1)


@dataclass(frozen=True, eq=False)
class VocMetrics:
    """The result of a VOC evaluation. Figures are fractions; NaN for a class without ground truth.

    Attributes:
        metric: "voc07" or "voc10": by which the figures under "bbox" are computed.
        curves: of each class at each IoU .5, .55, ..., .95.
        objects: of each class, difficult ones left out.
        aps: {"voc07": ..., "voc10": ...}, each (classes, 10) float64: AP of each class at each IoU.
    """

    metric: str
    curves: list[list[Curve]]
    objects: list[int]
    class_names: tuple[str, ...] = VOC_CLASSES
    aps: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        functions = {"voc07": eleven_point_ap, "voc10": area_ap}
        aps = {
            metric: np.array([[of(curve) for curve in row] for row in self.curves]) for metric, of in functions.items()
        }
        object.__setattr__(self, "aps", aps)

    def figures(self, metric: str) -> dict[str, float]:
        """Return the means over the classes with ground truth: AP over IoU .5 to .95, AP50, AP75; -1 of none."""
        aps = self.aps[metric][[number > 0 for number in self.objects]]
        if not len(aps):
            return {"AP": -1.0, "AP50": -1.0, "AP75": -1.0}
        # One IoU after the other as in detectron2: `mean(axis=0)` sums in another order.
        means = [float(np.mean(column.tolist())) for column in aps.T]
        return {"AP": float(np.mean(means)), "AP50": means[AT_50], "AP75": means[AT_75]}

    def of_classes(self, metric: str) -> dict[str, dict[str, float]]:
        """Return {class: {"AP": ..., "AP50": ..., "AP75": ...}}; -1 without ground truth."""
        found = {}
        for name, number, row in zip(self.class_names, self.objects, self.aps[metric]):
            values = (row.mean(), row[AT_50], row[AT_75]) if number else (-1.0, -1.0, -1.0)
            found[name] = dict(zip(("AP", "AP50", "AP75"), map(float, values)))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return {"bbox": figures by `metric`, "voc": both metrics' mAP at .5, .75 and averaged}, with each class's."""
        means: dict[str, Any] = {"metric": self.metric}
        classes: dict[str, dict[str, float]] = {name: {} for name in self.class_names}
        for metric in METRICS:
            figures = self.figures(metric)
            means |= {f"m{key}_{metric}": figures[key] for key in ("AP50", "AP75", "AP")}
            for name, of in self.of_classes(metric).items():
                classes[name] |= {f"{key}_{metric}": of[key] for key in ("AP50", "AP75", "AP")}
        per_class = self.of_classes(self.metric)
        return {
            "bbox": {**self.figures(self.metric), "per_class": per_class},
            "voc": {**means, "per_class": classes},
        }

    def table(self) -> str:
        """Return two Markdown tables: the means by both metrics, and each class by `metric`; "-" is: no object."""
        means = [[metric, *(_shown(value) for value in self.figures(metric).values())] for metric in METRICS]
        rows = [
            [name, *(_shown(of[key]) for key in ("AP50", "AP75", "AP")), number]
            for (name, of), number in zip(self.of_classes(self.metric).items(), self.objects)
        ]
        classes = table(rows, ["class", "AP50", "AP75", "AP", "objects"], digits=4)
        return f"{table(means, ['metric', 'mAP', 'mAP50', 'mAP75'], digits=4)}\n\nclasses, {self.metric}\n\n{classes}"


def evaluate_voc(
    truth: VocObjects | VocSplit,
    predictions: VocDetections | str | Path | list[dict[str, Any]],
    *,
    metric: str | None = None,
) -> VocMetrics:
    """Evaluate detections on a split of PASCAL VOC or ImageNet DET.

    Args:
        truth: the split, or what `read_split` returned for it.
        predictions: see `load_detections`.
        metric: "voc07" or "voc10"; by default that of the split's year. Both are computed.

    Raises:
        DataError: the split has no annotations, or a file is missing or malformed.
        UserError: an unknown metric.
    """
    split = truth if isinstance(truth, VocSplit) else truth.split
    metric = metric or metric_of(split)
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}{nearest(metric, METRICS)}")
    if not split.annotated:
        raise DataError(
            f"{split.list_file}: the split {split.split!r} has no annotations, so it cannot be evaluated here; "
            "--submission writes the files for the evaluation server"
        )
    objects = truth if isinstance(truth, VocObjects) else read_split(truth, need_images=False)
    objects = _without_nan(objects)
    if not isinstance(predictions, VocDetections):
        predictions = load_detections(predictions, objects.ids, split.split, split.classes)
    counted = np.bincount(objects.labels[~objects.difficult], minlength=len(split.classes))
    return VocMetrics(metric, curves(objects, predictions), counted.tolist(), split.classes)


def metric_of(split: VocSplit) -> str:
    """Return the metric of the split's year, as detectron2 chooses it: 11 points for 2007, else area."""
    return "voc07" if split.year == 2007 else "voc10"


def eleven_point_ap(curve: Curve) -> float:
    """Return the mean of the highest precisions at recall 0, 0.1, ..., 1 and beyond each."""
    if not len(curve.recall):
        return 0.0
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    places = np.searchsorted(curve.recall, ELEVEN_POINTS, side="left")
    # One after the other as in the reference: another order of the sum differs in the last bit.
    return sum((float(envelope[place]) / 11.0 for place in places if place < len(envelope)), start=0.0)


def area_ap(curve: Curve) -> float:
    """Return the area below the precision curve after it is made to fall."""
    recall = np.concatenate(([0.0], curve.recall, [1.0]))
    precision = np.concatenate(([0.0], curve.precision, [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * envelope[steps + 1]))


def _without_nan(objects: VocObjects) -> VocObjects:
    finite = np.isfinite(objects.boxes).all(axis=1)
    if finite.all():
        return objects
    columns = {name: getattr(objects, name)[finite] for name in ("image", "labels", "boxes", "difficult")}
    return VocObjects(objects.split, objects.ids, objects.sizes, **columns)


def _shown(value: float) -> float | None:
    return None if value < 0 else value

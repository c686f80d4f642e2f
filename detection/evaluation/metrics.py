"""COCO's figures from precision and recall curves, as pycocotools's `summarize` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backbone.common.text import table

from .engines import Curves

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
# Area ranges in squared pixels: small below 32^2, medium to 96^2, large beyond; here by their place in the curves.
AREAS = {"bbox": ("all", "small", "medium", "large"), "keypoints": ("all", "medium", "large")}
AREAS["segm"] = AREAS["bbox"]
AT_50, AT_75 = 0, 5
LONG = 20  # classes that stand one below the other


@dataclass(frozen=True, eq=False)
class CocoMetrics:
    """The result of a COCO evaluation. Figures are fractions, and -1 where there is no ground truth.

    Attributes:
        iou_type: "bbox", "segm" or "keypoints".
        engine: what ran: "hotcoco", "faster-coco-eval" or "pycocotools".
        class_names: of the K categories, in the order of their ids.
        max_detections: limits of detections per image and category, rising.
        without_mask: objects whose boxes were ignored, because they have no mask; see `load_ground_truth`.
        curves: precision and score (T, R, K, A, M), recall (T, K, A, M).
        summary: the figures in pycocotools's order; AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl for boxes and
            masks, AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl for keypoints.
        per_class: {class name: {"AP": ..., "AP50": ...}}, all areas.
    """

    iou_type: str
    engine: str
    class_names: list[str]
    max_detections: list[int]
    curves: Curves
    without_mask: int = 0
    summary: dict[str, float] = field(init=False)
    per_class: dict[str, dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", _summarize(self.curves, self.iou_type, self.max_detections))
        object.__setattr__(self, "per_class", _per_class(self.curves, self.class_names))

    @property
    def iou_thresholds(self) -> np.ndarray:
        """(T,): 0.5, 0.55, ..., 0.95."""
        return IOU_THRESHOLDS

    @property
    def recall_thresholds(self) -> np.ndarray:
        """(R,): 0, 0.01, ..., 1: the recalls that `precision` is at."""
        return RECALL_THRESHOLDS

    @property
    def area_names(self) -> tuple[str, ...]:
        """(A,): names of the area ranges."""
        return AREAS[self.iou_type]

    @property
    def precision(self) -> np.ndarray:
        """(T, R, K, A, M) precision at IoU, recall, category, area range, limit of detections."""
        return self.curves.precision

    @property
    def recall(self) -> np.ndarray:
        """(T, K, A, M) highest recall at IoU, category, area range, limit of detections."""
        return self.curves.recall

    def to_json(self) -> dict[str, Any]:
        """Return {"bbox": {"AP": ..., ..., "per_class": {class name: {"AP": ..., "AP50": ...}}}}."""
        return {self.iou_type: {**self.summary, "per_class": {name: dict(of) for name, of in self.per_class.items()}}}

    def table(self) -> str:
        """Return two Markdown tables, the figures and each class's AP, with three digits; "-" is: no ground truth.

        Many classes stand side by side, downwards first.
        """
        figures = table([[_shown(value) for value in self.summary.values()]], list(self.summary), digits=3)
        rows = [[name, _shown(of["AP"]), _shown(of["AP50"])] for name, of in self.per_class.items()]
        columns = 3 if len(rows) > LONG else 1
        height = -(-len(rows) // columns)
        rows += [["", None, None]] * (height * columns - len(rows))
        beside = [sum(rows[start::height], []) for start in range(height)]
        return f"{figures}\n\n{table(beside, ['class', 'AP', 'AP50'] * columns, digits=3)}"


def _shown(value: float) -> float | None:
    return None if value < 0 else value


def _summarize(curves: Curves, iou_type: str, max_detections: Sequence[int]) -> dict[str, float]:
    areas = {name[0]: place for place, name in enumerate(AREAS[iou_type]) if name != "all"}
    precision, recall = curves.precision[..., -1], curves.recall[..., -1]
    figures = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[AT_50, ..., 0]),
        "AP75": _mean(precision[AT_75, ..., 0]),
        **{f"AP{letter}": _mean(precision[..., place]) for letter, place in areas.items()},
    }
    if iou_type == "keypoints":
        figures["AR"] = _mean(recall[..., 0])
        figures["AR50"] = _mean(recall[AT_50, ..., 0])
        figures["AR75"] = _mean(recall[AT_75, ..., 0])
    else:
        figures |= {f"AR{limit}": _mean(curves.recall[..., 0, m]) for m, limit in enumerate(max_detections)}
    return figures | {f"AR{letter}": _mean(recall[..., place]) for letter, place in areas.items()}


def _per_class(curves: Curves, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    precision = curves.precision[:, :, :, 0, -1]
    return {
        name: {"AP": _mean(precision[:, :, k]), "AP50": _mean(precision[AT_50, :, k])}
        for k, name in enumerate(class_names)
    }


def _mean(values: np.ndarray) -> float:
    """The mean of what is not -1, summed in pycocotools's order, so that the last bit agrees; -1 of nothing."""
    present = values[values > -1]
    return float(np.mean(present)) if present.size else -1.0

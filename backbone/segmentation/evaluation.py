"""Confusion between classes, pixel by pixel, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.confusion import row_shares
from ..engine import distributed

KIND = "sem_seg"  # of the figures, as detectron2 calls them
VOID = 255  # label of pixels that count neither in training nor in testing


class Confusion:
    """Counts of pixels by true and predicted class, exact in 64 bits.

    Args:
        device: of the images that are added, so that none waits for the device; `gather` brings the sum to the CPU.

    Attributes:
        counts: (classes, classes) int64, rows by truth, columns by prediction.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Add an image: two (H, W) tensors of class numbers; pixels whose truth is VOID do not count.

        Returns:
            (classes, classes) int64: the counts of this image alone.
        """
        classes = len(self.counts)
        # Pixels of VOID go to a place behind the table: to pick the others out would wait for their number.
        places = torch.where(truth == VOID, classes**2, truth.long() * classes + predicted.long())
        counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=places.device)
        counts.scatter_add_(0, places.flatten(), torch.ones_like(places).flatten())
        counts = counts[:-1].view(classes, classes)
        self.counts += counts
        return counts

    def gather(self) -> Confusion:
        """Return the sum over all processes."""
        total = Confusion(len(self.counts))
        total.counts = torch.stack(distributed.gather(self.counts.cpu())).sum(0)
        return total


def metrics(counts: Tensor | np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Return the figures of a confusion matrix as fractions, by detectron2's names where it has them.

    mIoU and mDice are means over the classes that occur in truth or prediction, mACC (the recall) over those in truth,
    mPrecision over those that are predicted; fwIoU weighs by the share of true pixels; pACC is the share of right
    pixels. IoU-, ACC-, Precision- and Dice-<class> are NaN where not defined.

    Args:
        counts: (classes, classes or more), rows by truth, columns by prediction; pixels in columns behind the classes
            are missed, and found as no class.
    """
    counts = np.asarray(counts)
    right, true, found = counts.diagonal().astype(np.float64), counts.sum(1), counts[:, : len(counts)].sum(0)
    figures = {
        "IoU": _ratio(right, true + found - right),
        "ACC": _ratio(right, true),
        "Precision": _ratio(right, found),
        "Dice": _ratio(2 * right, true + found),
    }
    shares = _ratio(true, np.full_like(true, true.sum()))
    return {
        "mIoU": _mean(figures["IoU"]),
        "fwIoU": float(np.nansum(np.where(true > 0, figures["IoU"] * shares, 0))) if true.sum() else float("nan"),
        "mACC": _mean(figures["ACC"]),
        "pACC": float(right.sum() / true.sum()) if true.sum() else float("nan"),
        "mPrecision": _mean(figures["Precision"]),
        "mDice": _mean(figures["Dice"]),
        **{f"{kind}-{name}": float(value) for kind in figures for name, value in zip(classes, figures[kind])},
    }


def mean_iou(counts: Tensor) -> Tensor:
    """Return the mIoU of a confusion matrix as a tensor where the matrix is, so that nothing waits for the device."""
    right = counts.diagonal().double()
    union = counts.sum(1) + counts.sum(0) - right
    return torch.where(union > 0, right / union, 0).sum() / (union > 0).sum()


def figures_record(counts: Tensor | np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return for results.json what `metrics` gives, and the matrix: pixels, and their share of the true class's."""
    counts = np.asarray(counts)
    confusion = {
        "rows": "truth",
        "columns": "prediction",
        "classes": list(classes),
        "pixels": counts.tolist(),
        "share_of_truth": row_shares(counts).tolist(),
    }
    return {KIND: metrics(counts, classes), "confusion": confusion}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")

"""Confusion between classes, pixel by pixel, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..engine import distributed

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

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Add an image: two (H, W) tensors of class numbers; pixels whose truth is VOID do not count."""
        classes = len(self.counts)
        # Pixels of VOID go to a place behind the table: to pick the others out would wait for their number.
        places = torch.where(truth == VOID, classes**2, truth.long() * classes + predicted.long())
        counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=places.device)
        counts.scatter_add_(0, places.flatten(), torch.ones_like(places).flatten())
        self.counts += counts[:-1].view(classes, classes)

    def gather(self) -> Confusion:
        """Return the sum over all processes."""
        total = Confusion(len(self.counts))
        total.counts = torch.stack(distributed.gather(self.counts.cpu())).sum(0)
        return total


def metrics(counts: Tensor | np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Return the figures of a confusion matrix as fractions, by detectron2's names.

    mIoU is the mean over the classes that occur in truth or prediction, mACC over those in truth; fwIoU weighs by the
    share of true pixels; pACC is the share of right pixels. IoU-<class> and ACC-<class> are NaN where not defined.

    Args:
        counts: (classes, classes), rows by truth, columns by prediction.
    """
    counts = np.asarray(counts)
    right, true, found = counts.diagonal().astype(np.float64), counts.sum(1), counts.sum(0)
    iou, accuracy = _ratio(right, true + found - right), _ratio(right, true)
    shares = _ratio(true, np.full_like(true, true.sum()))
    return {
        "mIoU": _mean(iou),
        "fwIoU": float(np.nansum(np.where(true > 0, iou * shares, 0))) if true.sum() else float("nan"),
        "mACC": _mean(accuracy),
        "pACC": float(right.sum() / true.sum()) if true.sum() else float("nan"),
        **{f"IoU-{name}": float(value) for name, value in zip(classes, iou)},
        **{f"ACC-{name}": float(value) for name, value in zip(classes, accuracy)},
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")

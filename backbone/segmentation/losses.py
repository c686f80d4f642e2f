"""The losses of SOLVER: cross-entropy or focal loss over the pixels, weighted by class, and Dice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .evaluation import VOID

FOCAL = "focal"
LOSSES = ("cross_entropy", FOCAL)


class PixelLoss:
    """The loss of scores (N, classes, H, W) against labels (N, H, W); pixels of VOID count nowhere.

    Args:
        weights: of each class's pixels, (classes,).
        gamma: of focal loss: the loss of a pixel is times (1 - p)^gamma, p the probability of its class; 0 for
            cross-entropy.
        dice: what the Dice loss is multiplied by; 0 for none.
    """

    def __init__(self, weights: Tensor, *, gamma: float = 0.0, dice: float = 0.0) -> None:
        self.gamma, self.dice = gamma, dice
        # By label, so that no pixel must be picked out: VOID has the weight 0.
        self._weights = torch.zeros(VOID + 1, device=weights.device)
        self._weights[: len(weights)] = weights

    def total(self, labels: Tensor) -> Tensor:
        """Return the sum of the pixels' weights, a scalar: what the mean over pixels divides by."""
        return self._weights[labels].sum()

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted mean over the pixels, plus `dice` times the Dice loss; 0 where all is void."""
        losses = F.cross_entropy(scores, labels, ignore_index=VOID, reduction="none")
        weights = self._weights[labels]
        if self.gamma:
            # 1 - p, precise near 0 too, and never 0, where its power has no gradient.
            losses = (-torch.expm1(-losses)).clamp(min=1e-7) ** self.gamma * losses
        total = weights.sum()
        loss = (losses * weights).sum() / torch.where(total > 0, total, 1)
        return loss + self.dice * dice_loss(scores, labels) if self.dice else loss


def dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - 2 sum(p t) / (sum(p) + sum(t)), the mean over the classes that the labels have.

    The soft Dice loss, with the sums of probabilities and not of their squares.

    Args:
        scores: (N, classes, H, W) logits; p is their softmax, t 1 at the pixels of the class, and the sums are over all
            pixels of the batch that are not VOID.
    """
    known = labels != VOID
    shares = scores.softmax(1) * known[:, None]
    truth = torch.arange(scores.shape[1], device=labels.device).view(1, -1, 1, 1) == labels[:, None]
    both, found, true = (part.sum((0, 2, 3)) for part in (shares * truth, shares, truth))
    present = true > 0
    losses = torch.where(present, 1 - 2 * both / (found + true).clamp(min=1e-12), 0)
    return losses.sum() / present.sum().clamp(min=1)


def make_loss(solver: Any, weights: Sequence[float], device: torch.device) -> PixelLoss:
    """Return the loss of SOLVER; `weights` are those of the classes."""
    gamma = solver.FOCAL_GAMMA if solver.LOSS == FOCAL else 0.0
    return PixelLoss(torch.tensor(weights, dtype=torch.float32, device=device), gamma=gamma, dice=solver.DICE_WEIGHT)

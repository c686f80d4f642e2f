"""Gradient clipping before a step and the norm of gradients, by the keys of detectron2's SOLVER.CLIP_GRADIENTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

VALUE, NORM, FULL_MODEL = CLIP_TYPES = ("value", "norm", "full_model")


@dataclass(frozen=True)
class Clipping:
    """What is done to the gradients of a whole batch before a step.

    Attributes:
        kind: "value" limits each number, "norm" the norm of each parameter's gradient, "full_model" the norm of all
            gradients together.
        limit: largest size of a number, or largest norm.
        norm: p of the p-norm; infinity for the largest number.
    """

    kind: str
    limit: float
    norm: float = 2.0

    @classmethod
    def of(cls, solver: Any) -> Clipping | None:
        """Return the clipping of SOLVER; None where it is off."""
        keys = solver.CLIP_GRADIENTS
        return cls(keys.CLIP_TYPE, keys.CLIP_VALUE, keys.NORM_TYPE) if keys.ENABLED else None

    def __call__(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients of what an optimizer trains, in place; they must not be scaled."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.kind == VALUE:
            clip_grad_value_(parameters, self.limit)
        elif self.kind == FULL_MODEL:
            clip_grad_norm_(parameters, self.limit, self.norm)
        else:
            for parameter in parameters:
                clip_grad_norm_(parameter, self.limit, self.norm)

    def __str__(self) -> str:
        names = {VALUE: "each gradient number", NORM: "each parameter's gradient", FULL_MODEL: "the whole gradient"}
        of = "" if self.kind == VALUE else f"norm {self.norm:g} of "
        return f"{of}{names[self.kind]} at most {self.limit:g}"


def finish_gradients(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, clip: Clipping | None, *, measure: bool
) -> dict[str, float]:
    """Clip the gradients of a whole batch; return {"gradient_norm": that of all together before}, where asked for."""
    if clip is not None:
        # The true gradients, of all parts; the scaler divides them once.
        scaler.unscale_(optimizer)
    found = {}
    if measure:
        scale = scaler.get_scale() if clip is None else 1.0
        found["gradient_norm"] = _norm_of_all(optimizer) / scale
    if clip is not None:
        clip(optimizer)
    return found


def _norm_of_all(optimizer: torch.optim.Optimizer) -> float:
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0

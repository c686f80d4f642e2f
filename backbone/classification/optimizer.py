"""SGD as the paper's, in Caffe's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class CaffeSGD(torch.optim.SGD):
    """SGD with v := momentum v + lr (g + decay w), w := w - v.

    torch's form, v := momentum v + g and w := w - lr v, is the same while the rate stays. Where it changes, Caffe's v
    keeps the size that the former rate gave it: here torch's v is scaled by the ratio of the rates.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        for group in self.param_groups:
            before = group.setdefault("lr_before", group["lr"])
            if group["lr"] != before and group["lr"] > 0:
                for parameter in group["params"]:
                    velocity = self.state.get(parameter, {}).get("momentum_buffer")
                    if velocity is not None:
                        velocity.mul_(before / group["lr"])
            group["lr_before"] = group["lr"]
        return super().step(closure)


def make_optimizer(network: nn.Module, config: Any) -> torch.optim.Optimizer:
    """Return the optimizer of SOLVER; norms and biases have a weight decay of their own."""
    solver = config.SOLVER
    plain, small = [], []
    for parameter in network.parameters():
        if parameter.requires_grad:
            (small if parameter.ndim <= 1 else plain).append(parameter)
    groups = [{"params": plain, "weight_decay": solver.WEIGHT_DECAY}]
    if small:
        groups.append({"params": small, "weight_decay": solver.WEIGHT_DECAY_NORM})
    kind = CaffeSGD if solver.MOMENTUM_FORM == "caffe" else torch.optim.SGD
    return kind(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)

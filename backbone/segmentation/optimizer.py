"""SGD with a rate of its own for the heads."""

from __future__ import annotations

from typing import Any

import torch

from .networks import SegmentationNetwork


def make_optimizer(network: SegmentationNetwork, config: Any) -> torch.optim.SGD:
    """Return the optimizer of SOLVER: the backbone's groups first; norms and biases have a decay of their own."""
    solver = config.SOLVER
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            key = (not name.startswith("backbone."), parameter.ndim <= 1)
            groups.setdefault(key, []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": solver.BASE_LR * (solver.HEAD_LR_FACTOR if in_head else 1.0),
            "weight_decay": solver.WEIGHT_DECAY_NORM if small else solver.WEIGHT_DECAY,
        }
        for (in_head, small), parameters in sorted(groups.items())
    ]
    return torch.optim.SGD(settings, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)

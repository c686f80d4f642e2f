"""Random weights whose activations stay in range, BN statistics and affine terms included."""

from __future__ import annotations

import quick
import torch
from torch import nn


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Fill convolutions as they are initialised, and every tensor of a BN with values away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "running_mean"):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) * 0.5 + 0.4)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
                module.running_mean.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(module.bias.shape, generator=generator) + 0.5)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                number = module.weight.numel()
                values = torch.randn(quick.BLOCK if number > quick.LARGE else number, generator=generator)
                quick.repeat(module.weight, values * (2.0 / fan_in) ** 0.5)
    return network


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference over the largest value of `b`."""
    return ((a - b).abs().max() / b.abs().max()).item()

"""First weights of a network that is trained from nothing."""

from __future__ import annotations

from torch import nn


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution (fan out, ReLU), as the paper and torchvision have it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

"""Statistics for frozen BN where no weights bring them.

A network with random weights and frozen BN at mean 0 and variance 1 doubles its activations at every residual block:
ResNet-101 overflows. Taking the statistics from a few images, as a normal BN would, keeps every layer in range.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .norm import freeze_norm, unfreeze_norm


@torch.no_grad()
def calibrate_frozen_bn(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of every FrozenBatchNorm2d in `module` to those of the given inputs, in place.

    Args:
        module: a network or a stage of one.
        batches: inputs of `module`, such as images (N, 3, H, W); each counts alike.
    """
    was_training = module.training
    unfreeze_norm(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over all batches
    module.train()
    for batch in batches:
        module(batch)
    freeze_norm(module)
    module.train(was_training)

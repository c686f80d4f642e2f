"""Statistics for frozen BN where no weights bring them.

A network with random weights and frozen BN at mean 0 and variance 1 doubles its activations at every residual block:
ResNet-101 overflows. Taking the statistics from a few images, as a normal BN would, keeps every layer in range.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .norm import FrozenBatchNorm2d, statistics_kept


@torch.no_grad()
def calibrate_frozen_bn(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of every FrozenBatchNorm2d in `module` to those of the given inputs, in place.

    Args:
        module: a network or a stage of one.
        batches: inputs of `module`, such as images (N, 3, H, W); each counts alike.
    """
    was_training = module.training
    frozen = {name: layer for name, layer in module.named_modules() if isinstance(layer, FrozenBatchNorm2d)}
    for name, layer in frozen.items():
        trained = nn.BatchNorm2d(layer.num_features, layer.eps, momentum=None)  # the plain mean over all batches
        trained.load_state_dict(layer.state_dict(), strict=False)
        module.set_submodule(name, trained.to(layer.weight))
    others = [layer for name, layer in module.named_modules() if name not in frozen]
    module.eval()  # drop path and dropout would leave out activations
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
    with statistics_kept(others):
        for batch in batches:
            module(batch)
    for name, layer in frozen.items():
        layer.load_state_dict(module.get_submodule(name).state_dict())
        module.set_submodule(name, layer)
    module.train(was_training)

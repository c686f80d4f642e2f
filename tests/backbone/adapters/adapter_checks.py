"""What must hold of a training step of any detector with one of our networks inside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from backbone import adapters
from backbone.networks import FrozenBatchNorm2d


def check_training_step(model: nn.Module, loss_of: Callable[[], Tensor]) -> None:
    """Take a step of SGD: frozen stages, which there must be, and frozen BN stay; all else of the network moves."""
    network = adapters.network_of(model)
    frozen = {
        f"{module}.{name}"
        for stage in network.stage_names[: network.freeze_at]
        for module in network.stage_modules(stage)
        for name, _ in network.get_submodule(module).named_parameters()
    }
    assert frozen
    before = {name: value.clone() for name, value in network.state_dict().items()}
    constant = {
        f"{name}.{buffer}"
        for name, module in network.named_modules()
        if isinstance(module, FrozenBatchNorm2d)
        for buffer, _ in module.named_buffers()
    }
    assert constant
    model.train()
    loss = loss_of()
    assert loss.isfinite()
    loss.backward()
    for name, parameter in network.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.optim.SGD(trained, lr=0.1).step()
    parameters = dict(network.named_parameters())
    for name, value in network.state_dict().items():
        stays = name in frozen or name in constant
        assert torch.equal(value, before[name]) == stays, name
        assert stays or name in parameters, name

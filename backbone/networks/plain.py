"""A network without what training tools put around its stages and into its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

# Under these names torch's wrappers keep the module: torch.compile, DataParallel and DDP, checkpointing, FSDP.
INSIDE = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")


def unwrapped(module: nn.Module) -> nn.Module:
    """Return what stands inside torch's own wrappers, which compute nothing themselves; else `module`."""
    while type(module).__module__.startswith("torch."):
        children = dict(module.named_children())
        if len(children) != 1 or next(iter(children)) not in INSIDE:
            break
        (module,) = children.values()
    return module


def plain_copy(network: nn.Module, *, share: bool = False) -> nn.Module:
    """Return a deep copy that computes the same without torch's wrappers, pruning and parametrisations.

    The weights of pruned, parametrised and weight-normalised layers are ordinary parameters in it, with their values of
    this moment.

    Args:
        share: the copy's tensors, without gradients, lie in the memory of the network's.
    """
    memo: dict[int, Tensor] = {}
    if share:
        memo |= {id(tensor): tensor.detach() for tensor in network.buffers() if type(tensor) is Tensor}
        weights = [weight for weight in network.parameters() if type(weight) is nn.Parameter]
        memo |= {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in weights}
    memo |= {id(tensor): tensor.detach().clone() for tensor in _computed(network)}
    copied = copy.deepcopy(unwrapped(network), memo)
    for name, module in list(copied.named_modules()):
        inside = unwrapped(module)
        if name and inside is not module:
            copied.set_submodule(name, inside)
    # Reading a parametrised weight in training may change it (spectral norm).
    flags = {module: module.training for module in copied.modules()}
    copied.eval()
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            # torch's remove_parametrizations changes the class, which the copy shares with what it was made from.
            values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
            module.__class__ = type(module).__bases__[0]
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
            elif isinstance(hook, WeightNorm):
                torch.nn.utils.remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                torch.nn.utils.remove_spectral_norm(module, hook.name)
    for module in copied.modules():
        module.training = flags.get(module, False)
    return copied


def _computed(network: nn.Module) -> Iterator[Tensor]:
    """Yield the weights that a hook has computed from others, which copy.deepcopy refuses to copy."""
    for module in network.modules():
        for value in module.__dict__.values():
            if isinstance(value, Tensor) and not value.is_leaf:
                yield value

"""A network without what training tools put around its stages and into its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .contract import Backbone

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


def plain_names(network: nn.Module) -> dict[str, str]:
    """Return {name of a tensor without the wrappers on its way: its name in the network}.

    A wrapper is a module of one child, and nothing else in it. The weight that a pruned layer computes from has the
    name that it had; masks are left out. Wrappers in other networks than those of `backbone.create` stay.
    """
    names = network.state_dict()
    plain = {}
    for name in names:
        layer, _, kind = name.rpartition(".")
        pruned = kind.removesuffix("_orig")
        if f"{layer}.{pruned}_mask" in names:
            kind = pruned
        if f"{name.removesuffix('_mask')}_orig" not in names:
            plain[f"{path_inside(network, layer)}{kind}"] = name
    return plain


def load_plain(network: nn.Module, tensors: dict[str, Tensor], *, assign: bool = False) -> None:
    """Copy tensors by their `plain_names` into the network; with `assign`, put them in the place of its own."""
    names = plain_names(network)
    network.load_state_dict({names[name]: value for name, value in tensors.items()}, strict=False, assign=assign)


def path_inside(network: nn.Module, layer: str) -> str:
    """Return what stands before the names of a layer's tensors in `plain_names`: the layer's name and a dot."""
    kept, module, is_ours = "", network, isinstance(network, Backbone)
    for part in layer.split(".") if layer else ():
        # Names may leave out a wrapper themselves, as torch's for checkpointing do.
        is_wrapper = is_ours and list(module._modules) == [part] and not module._parameters and not module._buffers
        # A stage of one block is a Sequential of ours.
        is_stage = isinstance(module, nn.Sequential) and type(module) is not nn.Sequential
        if not is_wrapper or module is network or is_stage:
            kept += part + "."
        module = module.get_submodule(part)
    return kept


def _computed(network: nn.Module) -> Iterator[Tensor]:
    """Yield the weights that a hook has computed from others, which copy.deepcopy refuses to copy."""
    for module in network.modules():
        for value in module.__dict__.values():
            if isinstance(value, Tensor) and not value.is_leaf:
                yield value

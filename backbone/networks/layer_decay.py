"""Learning rates that fall from the classifier to the stem, for fine-tuning."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ..common.errors import ArchitectureError
from .contract import Backbone
from .plain import unwrapped

# A second entry of a pattern in timm's matchers: parameters of the group before.
WITH_PREVIOUS = (99999,)


def layer_depths(network: nn.Module, *, coarse: bool = False) -> dict[str, int]:
    """Return {parameter: depth} with 0 for the stem; groups and their order are those of `Backbone.group_matcher`.

    Raises:
        ArchitectureError: not a network of backbone.create.
    """
    network = unwrapped(network)
    if not isinstance(network, Backbone):
        raise ArchitectureError(f"layer groups: {type(network).__name__} is no network of backbone.create")
    rules = []
    for rank, patterns in enumerate(network.group_matcher(coarse).values()):
        entries = [(patterns, None)] if isinstance(patterns, str) else patterns
        rules += [(re.compile(pattern), rank, end) for pattern, end in entries]

    def place(name: str) -> tuple[int, ...]:
        for pattern, rank, end in rules:
            if match := pattern.match(name):
                return rank, *map(int, match.groups()), *(end or ())
        return (len(rules),)

    places = {name: place(name) for name, _ in network.named_parameters()}
    depths: dict[tuple[int, ...], int] = {}
    for key in sorted(set(places.values())):
        joins = key[-1:] == WITH_PREVIOUS and depths
        depths[key] = max(depths.values(), default=-1) + (0 if joins else 1)
    return {name: depths[key] for name, key in places.items()}


def layer_decay_groups(
    network: nn.Module,
    *,
    lr: float,
    layer_decay: float = 0.75,
    weight_decay: float = 0.05,
    decay_1d: bool = False,
    coarse: bool = False,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer of torch, one a block, with smaller learning rates nearer to the images.

    The rate of the last group is `lr`, that of each group before it `layer_decay` times the next. Frozen parameters
    are left out, and change no rate. timm.optim.param_groups_layer_decay gives the same groups.

    Args:
        network: of `backbone.create`, also inside torch.compile or DistributedDataParallel.
        decay_1d: norms and biases get the weight decay too.
        coarse: one group a stage in place of one a block.

    Returns:
        Dicts with "params", "lr", "lr_scale" (lr over the last group's) and "weight_decay".

    Raises:
        ArchitectureError: `layer_decay` is not above 0 and at most 1, or no network of backbone.create.
    """
    if not 0 < layer_decay <= 1:
        raise ArchitectureError(f"layer_decay must be above 0 and at most 1, not {layer_decay}")
    depths = layer_depths(network, coarse=coarse)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in unwrapped(network).named_parameters():
        if not parameter.requires_grad:
            continue
        decays = decay_1d or parameter.ndim > 1
        scale = layer_decay ** (max(depths.values()) - depths[name])
        fresh = {"params": [], "lr": lr * scale, "lr_scale": scale, "weight_decay": weight_decay if decays else 0.0}
        groups.setdefault((depths[name], decays), fresh)["params"].append(parameter)
    return list(groups.values())

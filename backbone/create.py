"""From a name to a network."""

from __future__ import annotations

import inspect
from pathlib import Path

from .architectures import find_architecture
from .contract import Backbone
from .errors import ArchitectureError
from .resnet import ResNet
from .text import nearest
from .weights import load_weights


def network_class(name: str) -> type[Backbone]:
    """Return the class that builds the network `name`; raises ArchitectureError for an unknown one."""
    find_architecture(name)
    return ResNet


def create(name: str, *, weights: str | Path | None = None, **keywords) -> Backbone:
    """Build a network.

    Args:
        name: one of `backbone.list_backbones()`.
        weights: a file that `backbone.load_weights` reads; without one, He initialisation.
        keywords: those of the network's class; for ResNets see `backbone.resnet.ResNet`.

    Raises:
        ArchitectureError: unknown name or keyword, or a value that the network cannot take.
        WeightsError: the weights do not fit.
    """
    network = network_class(name)
    known = [key for key in inspect.signature(network).parameters if key != "name"]
    for key in keywords:
        if key not in known:
            raise ArchitectureError(f"{name}: unknown keyword {key!r}{nearest(key, known)}")
    net = network(name, **keywords)
    if weights is not None:
        load_weights(net, weights)
    return net

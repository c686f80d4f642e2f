"""From a name to a network."""

from __future__ import annotations

import inspect

from ..common.errors import ArchitectureError
from ..common.text import nearest
from .architectures import Architecture, find_architecture
from .contract import Backbone
from .resnet import PreActResNet, ResNet
from .vgg import VGG

FAMILIES: dict[str, type[Backbone]] = {"resnet": ResNet, "preact": PreActResNet, "vgg": VGG}


def network_class(name: str | Architecture) -> type[Backbone]:
    """Return the class that builds the network `name`; raises ArchitectureError for an unknown one."""
    return FAMILIES[(name if isinstance(name, Architecture) else find_architecture(name)).family]


def keywords_of(name: str | Architecture) -> list[str]:
    """Return the keywords that the network `name` takes."""
    return [key for key in inspect.signature(network_class(name)).parameters if key != "name"]


def create(name: str | Architecture, **keywords) -> Backbone:
    """Build a network with random weights (He initialisation).

    Args:
        name: one of `backbone.list_backbones()`, or an `Architecture` of one's own.
        keywords: those of the network's class: `ResNet`, `PreActResNet` or `VGG` in `backbone.networks`.

    Raises:
        ArchitectureError: unknown name or keyword, or a value that the network cannot take.
    """
    known = keywords_of(name)
    for key in keywords:
        if key not in known:
            raise ArchitectureError(f"{name}: unknown keyword {key!r}{nearest(key, known)}")
    return network_class(name)(name, **keywords)

"""ResNet backbones for detection and segmentation. Needs torch and torchvision only.

A name below is imported when it is first used (PEP 562): a command line's --help, and a module here that computes
without torch, must not wait for torch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .common.errors import ArchitectureError, ConfigError, DataError, ExportError, RunError, UserError, WeightsError
    from .exporting import ExportReport, export
    from .networks import (
        ARCHITECTURES,
        Backbone,
        FeatureInfo,
        FoldedBackbone,
        FrozenBatchNorm2d,
        fold,
        freeze_bn,
        freeze_norm,
        layer_decay_groups,
        network_class,
        unfreeze_norm,
    )
    from .networks.precise_bn import BNReport, recompute_bn
    from .weights import (
        LoadReport,
        MisfitError,
        Preprocessing,
        WeightMetadata,
        load_weights,
        read_weight_metadata,
        save_weights,
    )

__all__ = [
    "ARCHITECTURES",
    "ArchitectureError",
    "BNReport",
    "Backbone",
    "ConfigError",
    "DataError",
    "ExportError",
    "ExportReport",
    "FeatureInfo",
    "FoldedBackbone",
    "FrozenBatchNorm2d",
    "LoadReport",
    "MisfitError",
    "Preprocessing",
    "RunError",
    "WeightMetadata",
    "UserError",
    "WeightsError",
    "create",
    "export",
    "fold",
    "freeze_bn",
    "freeze_norm",
    "layer_decay_groups",
    "list_backbones",
    "load_weights",
    "network_class",
    "read_weight_metadata",
    "recompute_bn",
    "save_weights",
    "unfreeze_norm",
]

__version__ = "0.1.0"

# The modules that define the names of __all__, the quickest to import first.
_HOMES = ("common.errors", "networks", "weights", "exporting", "networks.precise_bn")
_ROOMS = ("common", "networks", "weights", "exporting")


def create(name: str, *, weights: str | Path | None = None, part: str | None = None, **keywords) -> Backbone:
    """Build a network, with `weights` if they are given, else with random ones (He initialisation).

    Args:
        name: one of `list_backbones()`.
        weights: a file that `load_weights` reads; what it leaves open of the network is a warning.
        part: which of several networks in that file, as in `load_weights`.
        keywords: those of the network's class: `ResNet`, `PreActResNet` or `VGG` in `backbone.networks`.

    Raises:
        ArchitectureError: unknown name or keyword, or a value that the network cannot take.
        WeightsError: the weights do not fit.
    """
    from . import networks

    net = networks.create(name, **keywords)
    if weights is not None:
        from .weights import load_weights, open_weights
        from .weights.weight_metadata import doubts

        weights = open_weights(weights, part=part)
        report = load_weights(net, weights)
        for note in filter(None, [*doubts(net, report.weight_metadata), "" if part else weights.chosen]):
            # There is no report to hand over.
            warnings.warn(f"{report.source}: {note}", stacklevel=2)
    return net


def list_backbones() -> list[str]:
    """Return the names that `create` takes, in alphabetical order."""
    from .networks import ARCHITECTURES

    return sorted(ARCHITECTURES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})


# Hidden from type checkers: for them the imports above stand, and a misspelt name is a mistake.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _ROOMS:
            return importlib.import_module(f".{name}", __name__)
        if name in __all__:
            for home in _HOMES:
                module = importlib.import_module(f".{home}", __name__)
                if hasattr(module, name):
                    globals()[name] = getattr(module, name)
                    return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""ResNet backbones for detection and segmentation. Needs torch and torchvision only."""

from __future__ import annotations

from .errors import ArchitectureError, ConfigError, DataError, RunError, UserError, WeightsError
from .networks import (
    ARCHITECTURES,
    Backbone,
    FeatureInfo,
    FoldedBackbone,
    FrozenBatchNorm2d,
    create,
    fold,
    freeze_norm,
    network_class,
    unfreeze_norm,
)
from .weights import LoadReport, MisfitError, Preprocessing, Traits, load_weights, read_traits, save_weights

__all__ = [
    "save_weights",
    "read_traits",
    "Traits",
    "Preprocessing",
    "MisfitError",
    "ArchitectureError",
    "Backbone",
    "ConfigError",
    "DataError",
    "FeatureInfo",
    "FoldedBackbone",
    "FrozenBatchNorm2d",
    "LoadReport",
    "RunError",
    "UserError",
    "WeightsError",
    "create",
    "fold",
    "freeze_norm",
    "list_backbones",
    "load_weights",
    "network_class",
    "unfreeze_norm",
]


def list_backbones() -> list[str]:
    """Return the names that `create` takes, in alphabetical order."""
    return sorted(ARCHITECTURES)

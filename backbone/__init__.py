"""ResNet backbones for detection and segmentation. Needs torch and torchvision only."""

from __future__ import annotations

from .bn_statistics import BNReport, freeze_bn, recompute_bn
from .errors import ArchitectureError, ConfigError, DataError, ExportError, RunError, UserError, WeightsError
from .exporting import ExportReport, export
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
    "Traits",
    "UserError",
    "WeightsError",
    "create",
    "export",
    "fold",
    "freeze_bn",
    "freeze_norm",
    "list_backbones",
    "load_weights",
    "network_class",
    "read_traits",
    "recompute_bn",
    "save_weights",
    "unfreeze_norm",
]


def list_backbones() -> list[str]:
    """Return the names that `create` takes, in alphabetical order."""
    return sorted(ARCHITECTURES)

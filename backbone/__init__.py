"""ResNet backbones for detection and segmentation. Needs torch and torchvision only."""

from __future__ import annotations

from .architectures import ARCHITECTURES
from .contract import Backbone, FeatureInfo
from .create import create, network_class
from .errors import ArchitectureError, ConfigError, DataError, RunError, UserError, WeightsError
from .norm import FrozenBatchNorm2d, freeze_norm, unfreeze_norm
from .weights import LoadReport, load_weights

__all__ = [
    "ArchitectureError",
    "Backbone",
    "ConfigError",
    "DataError",
    "FeatureInfo",
    "FrozenBatchNorm2d",
    "LoadReport",
    "RunError",
    "UserError",
    "WeightsError",
    "create",
    "freeze_norm",
    "list_backbones",
    "load_weights",
    "network_class",
    "unfreeze_norm",
]


def list_backbones() -> list[str]:
    """Return the names that `create` takes, in alphabetical order."""
    return sorted(ARCHITECTURES)

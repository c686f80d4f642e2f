"""Our networks inside other projects' detectors: torchvision, timm and transformers (detectron2: `detection.register`).

A project is imported when a function here first needs it.
"""

from .inside import image_statistics, load_weights_into, network_of
from .timm_interface import TimmFeatures, timm_features
from .torchvision_pyramid import TorchvisionFPN, torchvision_fpn
from .transformers_registry import register_transformers, transformers_config

__all__ = [
    "TimmFeatures",
    "TorchvisionFPN",
    "image_statistics",
    "load_weights_into",
    "network_of",
    "register_transformers",
    "timm_features",
    "torchvision_fpn",
    "transformers_config",
]

"""Semantic segmentation on a dilated ResNet: training on label images, and testing by mean IoU."""

from .config import default_config, load_config

__all__ = ["default_config", "load_config"]

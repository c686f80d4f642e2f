"""Localisation on ImageNet (LOC): a box for each of an image's classes, by an RPN of each class, and by R-CNN."""

from .config import default_config, load_config

__all__ = ["default_config", "load_config"]

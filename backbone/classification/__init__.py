"""Training of classifiers on ImageNet and CIFAR-10, by the paper's recipe and today's, and testing them."""

from .config import default_config, load_config

__all__ = ["default_config", "load_config"]

"""Testing a classifier as the paper does: one crop, ten crops, fully convolutional, and ensembles."""

from .evaluation import evaluate
from .protocols import PROTOCOLS, Protocol
from .results import Errors

__all__ = ["PROTOCOLS", "Errors", "Protocol", "evaluate"]

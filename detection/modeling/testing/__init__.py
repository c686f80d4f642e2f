"""Testing a detector with more than one forward pass: Appendix B of the paper, and what is usual today beside it."""

from .methods import Methods, methods_of
from .network import Network
from .pipeline import Pipeline

__all__ = ["Methods", "Network", "Pipeline", "methods_of"]

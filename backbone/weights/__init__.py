"""Weights in and out of the networks."""

from .files import read_file
from .load import LoadReport, find_state_dict, load_weights, match, strip_prefixes

__all__ = ["LoadReport", "find_state_dict", "load_weights", "match", "read_file", "strip_prefixes"]

"""Weights in and out of the networks."""

from ..common.preprocessing import Preprocessing
from .content import WeightsFile, interpret, open_weights, read_weight_metadata
from .conversion import Conversion, convert
from .files import read_file
from .identify import candidates
from .layouts import LAYOUTS, WRITABLE
from .load import compare, load_weights
from .names import find_state_dict, strip_prefixes
from .report import LoadReport, MisfitError, match
from .save import save_weights
from .sources import resolve
from .weight_metadata import WeightMetadata

__all__ = [
    "LAYOUTS",
    "WRITABLE",
    "Conversion",
    "LoadReport",
    "MisfitError",
    "Preprocessing",
    "WeightMetadata",
    "WeightsFile",
    "candidates",
    "compare",
    "convert",
    "find_state_dict",
    "interpret",
    "load_weights",
    "match",
    "open_weights",
    "read_file",
    "read_weight_metadata",
    "resolve",
    "save_weights",
    "strip_prefixes",
]

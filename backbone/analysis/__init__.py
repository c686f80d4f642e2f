"""What networks cost (parameters, multiply-adds, activations, fields, memory) and how their layers respond."""

from .charts import pictures
from .network import NetworkReport, StageReport, analyse, measure_effective_fields
from .response_files import draw, write_csv
from .responses import PAPER, Responses, layer_responses, network_responses, pair_weights
from .tables import network_table, summary_table, to_json

__all__ = [
    "PAPER",
    "NetworkReport",
    "Responses",
    "StageReport",
    "analyse",
    "draw",
    "layer_responses",
    "measure_effective_fields",
    "network_responses",
    "network_table",
    "pair_weights",
    "pictures",
    "summary_table",
    "to_json",
    "write_csv",
]

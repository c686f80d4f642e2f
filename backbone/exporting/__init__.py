"""Networks out to other runtimes: ONNX, torch.export, TorchScript, OpenVINO; weights alone, checked."""

from .exporter import export
from .formats import FORMATS, ExportedNetwork, Format, load_exported
from .report import ExportReport
from .source import open_network, select_outputs
from .weights_file import export_weights

__all__ = [
    "FORMATS",
    "ExportReport",
    "ExportedNetwork",
    "Format",
    "export",
    "export_weights",
    "load_exported",
    "open_network",
    "select_outputs",
]

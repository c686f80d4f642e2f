"""Weights alone, through `save_weights`: read back and compared too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..common.environment import version
from ..common.errors import RunError
from ..networks.contract import Backbone
from ..weights import load_weights, open_weights, save_weights
from .check import TOLERANCE, compare, examples_of
from .graph import ExportGraph, ExportOptions, source_of
from .report import ExportReport
from .whole import put_in_place, temporary_folder


def export_weights(
    network: nn.Module,
    path: str | Path,
    *,
    layout: str = "torchvision",
    input_size: tuple[int, int] = (800, 1216),
    batch_size: int = 1,
    dynamic: bool = True,
    tolerance: float = TOLERANCE,
) -> ExportReport:
    """Write a network's weights, load them into an empty network and compare it with the source; see `save_weights`.

    Args:
        layout: of the names.
        input_size, batch_size, dynamic, tolerance: as in `export`.

    Raises:
        ExportError: the new file makes another network.
        WeightsError: as in `save_weights`, or the layout leaves out what the network has.
        RunError: the file cannot be written to disk.
    """
    path = Path(path)
    source = source_of(network)
    options = ExportOptions(input_size, batch_size, dynamic, channels=source.in_chans)
    examples = examples_of(source, ExportGraph(source, None), options)
    with temporary_folder(path) as folder:
        file = folder / path.name
        try:
            notes = save_weights(network, file, layout=layout)
        except RunError as error:
            raise RunError(str(error).replace(str(file), str(path))) from None
        again, metadata = _reloaded(source, file)
        compared = compare(again, examples, tolerance, f"{path} in torch")
        put_in_place(folder, path)
    return ExportReport(
        {path: path.stat().st_size},
        f"weights, {layout} layout",
        f"torch {version('torch')}",
        compared,
        metadata,
        notes=notes,
    )


def _reloaded(source: Backbone, path: Path) -> tuple[Backbone, dict[str, Any]]:
    """Return a network like `source` with the weights of the file, and the file's metadata."""
    network = copy.deepcopy(source)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.zero_()
    weights = open_weights(path)
    load_weights(network, weights)
    return network, weights.metadata

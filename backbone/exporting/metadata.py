"""What an exported file says of itself, as JSON text under one key of its own metadata."""

from __future__ import annotations

import json
from typing import Any

import torch

from ..common.environment import version
from ..networks.contract import Backbone
from ..weights.metadata import KEY
from ..weights.weight_metadata import options_of
from .graph import INPUT, ExportGraph, ExportOptions

__all__ = ["KEY", "describe", "dump", "parse"]
PROJECT = "resnet-detection"


def project() -> str:
    """Name and version of this project."""
    return f"{PROJECT} {version(PROJECT) or '(not installed)'}"


def describe(source: Backbone, graph: ExportGraph, options: ExportOptions) -> dict[str, Any]:
    """Return the metadata of a network's file.

    `preprocessing` is what the weights ask, None where it is not known; `input` is what the file itself takes: with
    `baked_preprocessing` RGB images as they are decoded, otherwise images that have gone through `preprocessing`.
    """
    preprocessing = getattr(source, "preprocessing", None)
    order = preprocessing.channel_order if preprocessing else None
    return {
        "architecture": source.architecture,
        "stages": {
            stage: {"channels": source.feature_info[stage].channels, "stride": source.feature_info[stage].stride}
            for stage in graph.outputs
        },
        **options_of(source),
        "preprocessing": preprocessing.to_dict() if preprocessing else None,
        "input": {
            "name": INPUT,
            "layout": "NCHW",
            "dtype": str(graph.dtype).removeprefix("torch."),
            "channel_order": "RGB" if graph.bakes and order == "BGR" else order,
            "baked_preprocessing": graph.bakes,
            "shape": [None, options.channels, None, None] if options.dynamic else list(options.shape),
        },
        "project": project(),
        "torch": torch.__version__,
    }


def dump(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata)


def parse(text: str | bytes | None) -> dict[str, Any]:
    """Read what `dump` wrote; {} where a file has none, or something else."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}

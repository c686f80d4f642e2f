"""What our own files say of their weights, as JSON text beside the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..common.errors import WeightsError
from ..common.preprocessing import Preprocessing
from .names import innermost
from .weight_metadata import KEYWORDS, WeightMetadata, options_of

# The key in safetensors' text metadata and in npz files; an attribute of the dict in torch files.
KEY = "backbone_metadata"


def describe(network: nn.Module, layout: str, extra: Mapping[str, Any] | None) -> str:
    """Return the metadata of a network's weights as JSON text.

    Raises:
        WeightsError: `extra` is not plain data.
    """
    preprocessing = getattr(network, "preprocessing", None)
    values = {
        "architecture": getattr(network, "architecture", None),
        "layout": layout,
        "norm": norm_of(network),
        "num_classes": _classes_of(network),
        "in_chans": getattr(network, "in_chans", None),
        **options_of(network),
        "preprocessing": preprocessing.to_dict() if preprocessing else None,
    }
    try:
        return json.dumps({name: value for name, value in values.items() if value is not None} | dict(extra or {}))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"metadata must be plain data (text, numbers, lists, dicts): {error}") from None


def _classes_of(network: nn.Module) -> int | None:
    logits = getattr(network, "feature_info", {}).get("logits")
    return logits.channels if logits else None


def norm_of(network: nn.Module) -> str | None:
    """Return "bn", "frozen_bn" or "gn", whichever is the most frequent; None without norms."""
    names = {"FrozenBatchNorm2d": "frozen_bn", "GroupNorm": "gn"}
    found = [
        names.get(type(module).__name__, "bn")
        for module in network.modules()
        if hasattr(module, "running_mean") or isinstance(module, nn.GroupNorm)
    ]
    return max(sorted(set(found)), key=found.count) if found else None


def find_metadata(content: Any, text: Mapping[str, str], source: str) -> dict[str, Any]:
    """Return the metadata of a file that `save_weights` wrote, or of a run's checkpoint; {} for other files.

    Args:
        content, text: what `read_file` returned.

    Raises:
        WeightsError: there is some, and it is broken.
    """
    found = text.get(KEY) or getattr(innermost(content), KEY, None)
    if found is None and isinstance(content, Mapping):
        found = content.get(KEY, _of_run(content))
    if found is None:
        return {}
    if not isinstance(found, (str, Mapping)):
        # A 0-d array of npz files; anything else is another tool's.
        found = str(found) if getattr(found, "shape", None) == () else {}
    try:
        values = json.loads(found) if isinstance(found, str) else dict(found)
    except (ValueError, RecursionError):
        raise WeightsError(f"{source}: its metadata is not JSON; save the weights again") from None
    return values if isinstance(values, dict) else {}


def _of_run(content: Mapping[Any, Any]) -> Mapping[str, Any] | None:
    """Return what a run's checkpoint says of the one network in it; a detector's names no architecture."""
    found = content.get("metadata")
    return found if isinstance(found, Mapping) and isinstance(found.get("architecture"), str) else None


def weight_metadata_in(metadata: Mapping[str, Any], source: str) -> WeightMetadata:
    """Return what the metadata knows.

    Raises:
        WeightsError: a value is of another kind than `save_weights` writes.
    """
    known = {name: metadata[name] for name in KEYWORDS if metadata.get(name) is not None}
    for name, value in known.items():
        if not any(type(value) is type(choice) and value == choice for choice in KEYWORDS[name]):
            choices = "true or false" if KEYWORDS[name] == (True, False) else f"one of {KEYWORDS[name]}"
            raise WeightsError(f"{source}: metadata {name} must be {choices}, not {str(value)[:40]!r}")
    preprocessing = metadata.get("preprocessing")
    try:
        preprocessing = None if preprocessing is None else Preprocessing.from_dict(preprocessing)
    except WeightsError as error:
        raise WeightsError(f"{source}: metadata: {error}") from None
    return WeightMetadata(preprocessing=preprocessing, **known)

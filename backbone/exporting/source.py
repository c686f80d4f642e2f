"""The network to export: out of a weights file, with the stages that are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..common.errors import ExportError
from ..networks import Backbone, create, keywords_of
from ..weights import WeightsFile, candidates, interpret, load_weights, read_file
from ..weights.identify import build, keywords_for


def open_network(
    path: str | Path,
    name: str | None = None,
    *,
    out_features: Sequence[str] | None = None,
    num_classes: int | None = None,
    part: str | None = None,
) -> tuple[Backbone, list[str]]:
    """Build the network that a weights file is of, in the form that its tensors have, and load it.

    Args:
        path: a file that `load_weights` reads, or a greater model's checkpoint with a backbone in it.
        name: the network; found from the file where it is not given.
        out_features: stages that it gives; by default the network's own, with `logits` only where `num_classes` is
            given.
        num_classes: of the classifier; for `logits` among `out_features` the file's own number.
        part: which of several networks in the file, as in `backbone.load_weights`.

    Returns:
        The network, and what the user should know, in words.

    Raises:
        WeightsError: the file cannot be read, is of no known network, or does not fit.
        ArchitectureError: unknown name or stage.
        ExportError: it is a whole detector's checkpoint, with a config.
    """
    content, text = read_file(path)
    weights = interpret(content, text, path, part=part)
    if weights.prefix and weights.beside and isinstance(content, Mapping) and "config" in content:
        raise ExportError(
            f"{path}: a detector's checkpoint, whose config says what its backbone is; give it as --checkpoint of "
            "tools/export_backbone.py"
        )
    name, *others = [name] if name else candidates(weights)
    keywords = _keywords(weights, name)
    if num_classes is not None:
        keywords["num_classes"] = num_classes
    elif "logits" not in (out_features or ()):
        keywords.pop("num_classes", None)
    if out_features is not None:
        keywords["out_features"] = out_features
    network = create(name, **keywords)
    report = load_weights(network, weights)
    notes = list(report.notes)
    if others:
        notes.append(f"{' and '.join(others)} has the same tensors: name the network if it is that one")
    if network.preprocessing is not None and network.preprocessing.assumed:
        notes.append(f"the file does not say its preprocessing; the usual one is taken: {network.preprocessing}")
    return network, notes


def _keywords(weights: WeightsFile, name: str) -> dict[str, Any]:
    """Return the keywords of `create` that follow from the tensors, the shortcut among them."""
    with torch.device("meta"):
        probe = build(weights, name)
    keywords = keywords_for(weights)
    if getattr(probe, "table", None) is not None:
        keywords["shortcut"] = probe.table.shortcut
    known = keywords_of(name)
    return {key: value for key, value in keywords.items() if key in known}


def select_outputs(network: Backbone, out_features: Sequence[str]) -> None:
    """Let a network that is built give other stages, in place.

    Raises:
        ExportError: it was built without one of them.
    """
    missing = [stage for stage in out_features if stage not in network.feature_info]
    if missing or not out_features:
        raise ExportError(
            f"{network.architecture} was built without {', '.join(missing) or 'any stage'}; "
            f"it can give {', '.join(network.feature_info)}"
        )
    network.out_features = tuple(stage for stage in network.feature_info if stage in out_features)

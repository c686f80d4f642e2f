"""Which network a file's tensors are of, from their names and shapes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..common.errors import UserError, WeightsError
from .content import WeightsFile

FIRST = ("conv1.weight", "conv1.0.weight", "features.0.weight")
CLASSIFIERS = ("fc.weight", "classifier.6.weight")


def keywords_for(weights: WeightsFile) -> dict[str, Any]:
    """Return the keywords of `backbone.create` that follow from the tensors and their metadata."""
    tensors = weights.tensors
    keywords: dict[str, Any] = dict(weights.weight_metadata.keywords())
    classifier = next((tensors[name] for name in CLASSIFIERS if name in tensors), None)
    if classifier is not None and classifier.ndim == 2:
        keywords["num_classes"] = classifier.shape[0]
    norms = [name for name in tensors if re.search(r"(^|\.)(bn\d?|downsample\.1)\.weight$", name)]
    if norms and not any(name.endswith("running_var") for name in tensors):
        keywords["norm"] = "gn"
    if "conv1.0.weight" in tensors:
        keywords["stem"] = "deep"
    first = next((tensors[name] for name in FIRST if name in tensors), None)
    if first is not None and first.ndim == 4 and first.shape[1] > 0:
        keywords["in_chans"] = first.shape[1]
    return keywords


def build(weights: WeightsFile, name: str) -> nn.Module:
    """Create the network `name` in the form that the tensors have; raises ArchitectureError for an unknown one."""
    from ..networks import ARCHITECTURES, create, network_class

    known = inspect.signature(network_class(name)).parameters
    keywords = keywords_for(weights)
    usual, found = ARCHITECTURES[name].shortcut, shortcut_of(weights.tensors)
    keywords.pop("shortcut", None)
    if usual not in (None, found):
        keywords["shortcut"] = found
    return create(name, **{key: value for key, value in keywords.items() if key in known})


def shortcut_of(names: Iterable[str]) -> str:
    """Return the paper's option: projections in every block (C), where sizes change (B), nowhere (A)."""
    projections = [name for name in names if name.endswith(".downsample.0.weight")]
    if any(re.match(r"layer\d\.[1-9]", name) for name in projections):
        return "C"
    return "B" if projections else "A"


def find_backbones(weights: WeightsFile) -> list[str]:
    """Return the names of the networks that have exactly these tensors (a plain net has those of a ResNet with
    option A); the likelier first."""
    from ..networks import ARCHITECTURES

    shapes = {name: value.shape for name, value in weights.tensors.items() if not name.endswith("num_batches_tracked")}
    blocks = _blocks(shapes)
    found = []
    for name, table in ARCHITECTURES.items():
        if table.blocks != blocks and (blocks or table.block != "conv"):
            continue
        try:
            with torch.device("meta"):
                network = build(weights, name)
        except UserError:
            continue
        state = {key: value.shape for key, value in network.state_dict().items()}
        if {key: shape for key, shape in state.items() if not key.endswith("num_batches_tracked")} == shapes:
            found.append(name)
    return sorted(found, key=lambda name: ("plain" in name, name))


def candidates(weights: WeightsFile) -> list[str]:
    """Return the networks that the tensors are of: the one that the file names, or `find_backbones`.

    Raises:
        WeightsError: there is none.
    """
    found = [weights.architecture] if weights.architecture else find_backbones(weights)
    if not found:
        raise WeightsError(f"{weights}: its tensors are those of no known network; name it to see what differs")
    return found


def _blocks(names: dict[str, Any]) -> tuple[int, ...]:
    """Return the number of blocks in each stage, by the names alone."""
    counts: dict[int, set[int]] = {}
    for name in names:
        if match := re.match(r"layer(\d)\.(\d+)\.", name):
            counts.setdefault(int(match[1]), set()).add(int(match[2]))
    return tuple(len(counts[stage]) for stage in sorted(counts))

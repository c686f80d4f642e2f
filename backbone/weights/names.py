"""From what a file holds to named tensors: the containers of training tools, the prefixes of wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..common.errors import WeightsError

# Keys under which training tools put the state dict (Detectron: "blobs").
CONTAINERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "blobs")
# What wrappers put before every name: DDP, torch.compile, Lightning, detectors (torchvision's "body"), transformers.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "bottom_up.", "body.", "encoder.", "resnet.")


def find_state_dict(content: Any, source: str) -> dict[str, Tensor]:
    """Return the tensors of a file's content by name, out of their containers.

    Raises:
        WeightsError: there are none.
    """
    content = innermost(content)
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {
            name: value
            for name, value in content.items()
            if isinstance(value, Tensor) and isinstance(name, str) and not name.endswith("_momentum")
        }
    if not tensors:
        raise WeightsError(f"{source}: holds no named tensors; expected a state dict")
    return tensors


def innermost(content: Any) -> Any:
    """Follow the containers to the state dict."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    return content


def strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before every name: `module.` (DDP), `model.` (Lightning), `backbone.` (detectors)."""
    changed = True
    while changed:
        changed = False
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in tensors):
                tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
                changed = True
    return tensors


def wrapper_prefixes(names: Mapping[str, Tensor]) -> list[str]:
    """Return the chains of wrappers' prefixes that stand before some of the names, the longest first."""
    chains = set()
    for name in names:
        chain = ""
        while step := next((prefix for prefix in PREFIXES if name.startswith(chain + prefix)), None):
            chain += step
            chains.add(chain)
    return sorted(chains, key=len, reverse=True)

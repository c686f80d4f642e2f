"""From what a file holds to named tensors: the containers of training tools, the prefixes of wrappers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..common.errors import WeightsError
from .unpickling import Placeholder

# Keys under which training tools put the state dict (Detectron: "blobs").
CONTAINERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "blobs")
# What wrappers put before every name: DDP, torch.compile, Lightning, detectors (torchvision's "body"), transformers.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "bottom_up.", "body.", "encoder.", "resnet.")
# What torch's wrappers of a single layer put inside of names: torch.compile, checkpointed activations, FSDP.
WRAPPER = re.compile(r"(^|\.)(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
# What stands beside a model in a checkpoint and holds tensors too.
BESIDE_MODELS = re.compile(r"optim|opt$|(lr_)?sched|(grad_)?scaler|amp$|rng|metadata$")
WHOLE_MODULE = (
    "holds a whole pickled module ({}), which is refused since it cannot be read without running its code; where the "
    "module is at home, save its tensors alone: torch.save(model.state_dict(), FILE)"
)


def find_state_dict(content: Any, source: str) -> dict[str, Tensor]:
    """Return the tensors of a file's content by name, out of their containers.

    Raises:
        WeightsError: there are none.
    """
    held = innermost(content)
    tensors = _tensors_in(held)
    if not tensors:
        values = [content, *(content.values() if isinstance(content, Mapping) else ())]
        module = next((value for value in values if isinstance(value, Placeholder) and value.is_module), None)
        problem = WHOLE_MODULE.format(module) if module else "holds no named tensors; expected a state dict"
        raise WeightsError(f"{source}: {problem}")
    return {without_wrappers(name): value for name, value in tensors.items()}


def _tensors_in(held: Any) -> dict[str, Tensor]:
    values = held.items() if isinstance(held, Mapping) else ()
    return {
        name: value
        for name, value in values
        if isinstance(value, Tensor) and isinstance(name, str) and not name.endswith("_momentum")
    }


def walk(content: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Give every dict of a file's content that holds named tensors, with the keys that lead to it, each with a dot."""
    if not isinstance(content, Mapping):
        return
    tensors = _tensors_in(content)
    if tensors:
        yield path, {without_wrappers(name): value for name, value in tensors.items()}
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and not BESIDE_MODELS.match(key):
            yield from walk(value, f"{path}{key}.")


def without_wrappers(name: str) -> str:
    """Take off what torch's wrappers put before a name, or inside of it."""
    return WRAPPER.sub(r"\1", name)


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

"""Writing a network's weights in any layout that another project reads."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..common.errors import WeightsError
from ..common.files import checked_file, write_whole
from ..common.text import count, nearest
from ..networks.contract import Backbone
from ..networks.conv_norm import FoldedConv
from ..networks.plain import plain_copy, plain_names, unwrapped
from .layouts import writable_layout
from .metadata import KEY, describe
from .reader_notes import reader_notes

AUTHOR = "resnet-detection"


def save_weights(
    network: nn.Module,
    path: str | Path,
    *,
    layout: str = "torchvision",
    metadata: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write a network's weights; the former file is kept until the new one is whole.

    What the weights ask (preprocessing, stride placement, pooling), the architecture and the norm stand in the file
    beside the tensors, where `load_weights` and `read_weight_metadata` find them and other readers do not see them.

    Args:
        path: .pth, .pt or .th (a state dict as torch.load returns it; in detectron2's layout under "model"),
            .safetensors, .pkl (detectron2's: arrays under "model") or .npz.
        layout: "torchvision" (ours, for every network), "timm", "mmdet", "mmpretrain", "detectron2", "huggingface".
        metadata: plain values to add to the file's metadata.

    Returns:
        What the reader in that project has to know, in words.

    Raises:
        WeightsError: unknown suffix or layout, a layout without such a network, or a folded copy.
        RunError: the file cannot be written.
    """
    path = Path(path)
    write = writer_for(path)
    network = unwrapped(network)
    tensors, notes = converted(network, layout)
    text = describe(network, layout, metadata)
    container = writable_layout(layout).container
    write_whole(path, lambda temporary: write(temporary, tensors, text, container))
    return notes


def converted(network: nn.Module, layout: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return a network's tensors under a layout's names, on the CPU, and the notes of `save_weights`.

    Raises:
        WeightsError: as in `save_weights`.
    """
    target = writable_layout(layout)
    network = unwrapped(network)
    if not isinstance(network, Backbone) or any(isinstance(module, FoldedConv) for module in network.modules()):
        raise WeightsError(
            f"weights of {type(network).__name__} are not written: a network of backbone.create is needed, and of a "
            "folded copy the network that it was made from"
        )
    state = plain_state(network)
    target.check(network, state)
    tensors = target.from_ours(state, network)
    return {name: value.contiguous() for name, value in tensors.items()}, reader_notes(network, layout, state)


def plain_state(network: Backbone) -> dict[str, Tensor]:
    """Return a network's tensors, on the CPU, under the names that `backbone.create` gives them.

    A compiled or otherwise wrapped stage has the names of what stands inside; a pruned or parametrised weight is the
    one that the layer computes with.

    Raises:
        WeightsError: tensors are on meta, or a layer was replaced by one whose tensors have other names.
    """
    if not network.built_names <= network.state_dict().keys():
        network = plain_copy(network)
    own = network.state_dict()
    if any(value.is_meta for value in own.values()):
        raise WeightsError(f"{network.architecture}: its weights are on meta and hold no values; nothing is written")
    state = {plain: own[name].detach().cpu() for plain, name in plain_names(network).items()}
    lost = sorted(name for name in network.built_names - state.keys() if not name.startswith(("fc.", "classifier.")))
    if lost:
        raise WeightsError(
            f"{network.architecture}: not written, since {count(len(lost), 'tensor')} such as {lost[0]} would have "
            "other names for replaced layers; merge these layers or put the former ones back"
        )
    return state


Writer = Callable[[Path, Mapping[str, Tensor], str, "str | None"], None]


def writer_for(path: Path) -> Writer:
    """Return the writer for a file's suffix; raises WeightsError for an unknown one."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        suffixes = sorted(WRITERS)
        raise WeightsError(
            f"{path}: weights are not written as {path.suffix or 'a file without a suffix'!r}"
            f"{nearest(path.suffix, suffixes)}; suffixes: {', '.join(suffixes)}"
        )
    return writer


def _write_torch(path: Path, tensors: Mapping[str, Tensor], text: str, container: str | None) -> None:
    # An attribute of the dict, as torch's own version numbers are: torch.load gives a state dict that any project's
    # load_state_dict takes as it is.
    state = OrderedDict(tensors)
    setattr(state, KEY, text)
    content: Any = state
    if container == "model":
        content = {"model": state, "__author__": AUTHOR, "matching_heuristics": True, KEY: text}
    with checked_file(path) as file:
        torch.save(content, file)


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], text: str, container: str | None) -> None:
    from safetensors.torch import save

    # transformers reads only files that say which library's tensors they hold.
    path.write_bytes(save(dict(tensors), metadata={"format": "pt", KEY: text}))


def _write_pickle(path: Path, tensors: Mapping[str, Tensor], text: str, container: str | None) -> None:
    arrays = {name: value.numpy() for name, value in tensors.items()}
    with path.open("wb") as file:
        pickle.dump({"model": arrays, "__author__": AUTHOR, "matching_heuristics": True, KEY: text}, file, protocol=4)


def _write_npz(path: Path, tensors: Mapping[str, Tensor], text: str, container: str | None) -> None:
    arrays = {name: value.numpy() for name, value in tensors.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays, **{KEY: np.array(text)})


WRITERS: dict[str, Writer] = {
    ".npz": _write_npz,
    ".pkl": _write_pickle,
    ".pt": _write_torch,
    ".pth": _write_torch,
    ".safetensors": _write_safetensors,
    ".th": _write_torch,
}

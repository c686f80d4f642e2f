"""A weights file, read and understood: tensors under our names, and all that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.errors import WeightsError
from .files import file_kind, read_file
from .layouts import find_layout
from .metadata import find_metadata, traits_in
from .names import find_state_dict, strip_prefixes, wrapper_prefixes
from .openmmlab_config import traits_of_openmmlab
from .traits import Traits


@dataclass(frozen=True)
class WeightsFile:
    """What `open_weights` found.

    Attributes:
        source: the file.
        kind: "torch", "safetensors", "pickle", "npz" or "caffemodel".
        layout: name of the layout of its names; None for an unknown one, whose names are kept.
        tensors: by our names.
        traits: what is known beside the shapes.
        metadata: what `save_weights` or a run's checkpoint says, the architecture among it; {} in other files.
        beside: names of tensors that belong to something else, such as a detector's heads.
        prefix: what stood before the names of a backbone inside a greater model.
    """

    source: str
    kind: str
    layout: str | None
    tensors: dict[str, Tensor]
    traits: Traits
    metadata: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def architecture(self) -> str | None:
        """The network's name where the file tells it."""
        name = self.metadata.get("architecture")
        return name if isinstance(name, str) else None

    def __str__(self) -> str:
        names = f"{self.layout} layout" if self.layout else "names of no known layout"
        return f"{self.source}: {self.kind} file, {names}"


def open_weights(path: str | Path, *, part: bool = False) -> WeightsFile:
    """Read a weights file of any kind and layout.

    Args:
        part: look for a backbone inside a greater model too, such as a detector's checkpoint.

    Raises:
        WeightsError: it cannot be read, or holds no named tensors.
    """
    return interpret(*read_file(path), path, part=part)


def interpret(content: Any, text: Mapping[str, str], path: str | Path, *, part: bool = False) -> WeightsFile:
    """Return what `open_weights` returns, of a file that is read already.

    Args:
        content, text: what `read_file` returned for `path`.

    Raises:
        WeightsError: it holds no named tensors, or those of a layout in strange shapes.
    """
    source = str(path)
    kind = file_kind(Path(path))
    tensors = strip_prefixes(find_state_dict(content, source))
    prefix, layout = "", find_layout(tensors)
    beside: tuple[str, ...] = ()
    if layout is None and part:
        prefix = inner_prefix(tensors)
        beside = tuple(name for name in tensors if not name.startswith(prefix))
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        layout = find_layout(tensors)
    facts = dict(text) | {"author": str(content["__author__"])} if _has_author(content) else dict(text)
    metadata = find_metadata(content, text, source)
    traits = traits_in(metadata, source)
    if layout is not None:
        try:
            traits = layout.traits(tensors, facts).updated(traits_of_openmmlab(content)).updated(traits)
            tensors = layout.to_ours(tensors, facts)
        except WeightsError as error:
            raise WeightsError(f"{source}: {error}") from None
        except (RuntimeError, IndexError, ValueError) as error:
            raise WeightsError(
                f"{source}: tensors of strange shapes for the {layout.name} layout: {str(error).splitlines()[0]}"
            ) from None
    return WeightsFile(source, kind, layout and layout.name, tensors, traits, metadata, beside, prefix)


def inner_prefix(tensors: Mapping[str, Tensor]) -> str:
    """Return the wrappers' prefix under which stands a backbone of a known layout; "" for none."""
    for prefix in wrapper_prefixes(tensors):
        if find_layout({name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}):
            return prefix
    return ""


def _has_author(content: Any) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("__author__"), str)


def read_traits(path: str | Path) -> Traits:
    """Return what a weights file asks of the network and of its images, before either is built.

    Raises:
        WeightsError: as in `open_weights`.
    """
    return open_weights(path, part=True).traits

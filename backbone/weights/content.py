"""A weights file, read and understood: tensors under our names, and all that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.errors import WeightsError
from ..common.text import count
from .files import file_kind, read_file
from .metadata import find_metadata, weight_metadata_in
from .names import find_state_dict, strip_prefixes
from .openmmlab_config import openmmlab_weight_metadata
from .places import choose, find_places, part_extras
from .sources import metadata_by_name, resolve
from .weight_metadata import WeightMetadata

SHOWN = 3  # names in a note


@dataclass(frozen=True)
class WeightsFile:
    """What `open_weights` found.

    Attributes:
        source: the file.
        kind: "torch", "safetensors", "pickle", "npz" or "caffemodel".
        layout: name of the layout of its names; None for an unknown one, whose names are kept.
        tensors: by our names.
        weight_metadata: what is known beside the shapes.
        metadata: what `save_weights` or a run's checkpoint says, the architecture among it; {} in other files.
        beside: names of tensors that are no part of the network, such as a detector's or a projection's heads.
        prefix: what stood before the names of a backbone inside a greater model.
        part: the name of the network in the file, where it holds several.
        copies: the names of moving averages of it, which `part` of `open_weights` takes instead.
    """

    source: str
    kind: str
    layout: str | None
    tensors: dict[str, Tensor]
    weight_metadata: WeightMetadata
    metadata: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    prefix: str = ""
    part: str = ""
    copies: tuple[str, ...] = ()

    @property
    def architecture(self) -> str | None:
        """The network's name where the file tells it."""
        name = self.metadata.get("architecture")
        return name if isinstance(name, str) else None

    @property
    def chosen(self) -> str:
        """Which of several networks was taken, in words; "" where there is one."""
        if not self.copies:
            return f"{self.part!r} taken" if self.part else ""
        name = repr(self.part) if self.part else "the network without a name before it"
        copies = ", ".join(map(repr, self.copies))
        return f"{name} taken; part={self.copies[0]!r} (--part) takes its copy (there is {copies})"

    def notes(self) -> list[str]:
        """Return what was left out, and which of several networks was taken, in words."""
        notes = [*filter(None, [self.chosen])]
        names = [name for name in self.beside if not name.endswith("num_batches_tracked")]
        if names:
            shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            where = f" beside {self.prefix!r}" if self.prefix else ""
            notes.append(f"{count(len(names), 'tensor')}{where} left out, no part of the network ({shown})")
        return notes

    def __str__(self) -> str:
        names = f"{self.layout} layout" if self.layout else "names of no known layout"
        return f"{self.source}: {self.kind} file, {names}"


def open_weights(path: str | Path, *, part: str | None = None) -> WeightsFile:
    """Read a weights file of any kind and layout, or the network of one inside of a greater model's.

    Args:
        part: which of several networks in the file: what stands before its names, or a part of that.

    Raises:
        WeightsError: it cannot be read, holds no named tensors, or several networks of which `part` names none.
    """
    return interpret(*read_file(path), path, part=part)


def interpret(content: Any, text: Mapping[str, str], path: str | Path, *, part: str | None = None) -> WeightsFile:
    """Return what `open_weights` returns, of a file that is read already.

    Args:
        content, text: what `read_file` returned for `path`.

    Raises:
        WeightsError: as in `open_weights`, or a layout's tensors have strange shapes.
    """
    source = str(path)
    kind = file_kind(resolve(path))
    facts = dict(text) | {"author": str(content["__author__"])} if _has_author(content) else dict(text)
    metadata = find_metadata(content, text, source)
    weight_metadata = weight_metadata_in(metadata, source)
    places = find_places(content)
    if not places:
        if part is not None:
            raise WeightsError(f"{source}: holds no network of a known layout, so none is {part!r}")
        return WeightsFile(
            source, kind, None, strip_prefixes(find_state_dict(content, source)), weight_metadata, metadata
        )
    place, copies = choose(places, part, source)
    layout = place.layout
    try:
        weight_metadata = (
            layout.weight_metadata(place.tensors, facts)
            .updated(openmmlab_weight_metadata(content))
            .updated(weight_metadata)
        )
        tensors, extras = part_extras(layout.to_ours(place.tensors, facts))
        weight_metadata = weight_metadata.updated(metadata_by_name(path, tensors))
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    except (RuntimeError, IndexError, ValueError) as error:
        raise WeightsError(
            f"{source}: tensors of strange shapes for the {layout.name} layout: {str(error).splitlines()[0]}"
        ) from None
    beside = (*(place.prefix + name for name in extras), *place.beside)
    taken = place.name if copies or part is not None else ""
    return WeightsFile(
        source, kind, layout.name, tensors, weight_metadata, metadata, beside, place.prefix, taken, copies
    )


def _has_author(content: Any) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("__author__"), str)


def read_weight_metadata(path: str | Path, *, part: str | None = None) -> WeightMetadata:
    """Return what a weights file asks of the network and of its images, before either is built.

    Raises:
        WeightsError: as in `open_weights`.
    """
    return open_weights(path, part=part).weight_metadata

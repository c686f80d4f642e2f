"""From one weights file to another: other names, another kind of file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..common.errors import WeightsError
from ..common.files import write_whole
from .content import WeightsFile, open_weights
from .identify import build, candidates
from .layouts import writable_layout
from .load import load_weights
from .metadata import describe
from .report import LoadReport
from .save import converted, writer_for
from .sources import resolve


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes:
        read: of the loading of the source into the network.
        architecture: the network's name.
        tensors: how many were written, and compared with the network's after reading them back.
        notes: what a reader of the new file has to know, in words.
    """

    read: LoadReport
    architecture: str
    tensors: int
    notes: list[str]


def convert(
    source: str | Path | WeightsFile,
    target: str | Path,
    layout: str,
    *,
    architecture: str | None = None,
    overwrite: bool = False,
    part: str | None = None,
) -> Conversion:
    """Read a weights file of any known kind and write it in `layout`, in the kind that `target`'s suffix names.

    The new file is read back and compared before it takes its name.

    Args:
        source: a path, or a name or URL as in `sources`, or what `open_weights` made of it.
        architecture: the network; found from the file where it is not given.
        part: which of several networks in the source, as in `open_weights`.

    Raises:
        WeightsError: the source cannot be read or does not fit, the target cannot hold it, or exists without
            `overwrite`.
    """
    file, target = resolve(source.source if isinstance(source, WeightsFile) else source), Path(target)
    write = writer_for(target)
    container = writable_layout(layout).container
    if target.exists() and file.exists() and os.path.samefile(file, target):
        raise WeightsError(f"{target}: this is the file to read, which stays as it is; give another name")
    if target.exists() and not overwrite:
        raise WeightsError(f"{target}: exists already; --force writes over it")
    weights = source if isinstance(source, WeightsFile) else open_weights(source, part=part)
    name, *others = [architecture] if architecture else candidates(weights)
    network = build(weights, name)
    read = load_weights(network, weights)
    tensors, notes = converted(network, layout)
    if others:
        notes.append(f"{' and '.join(others)} has the same tensors: name the network if it is that one (--backbone)")
    notes += weights.notes()
    text = describe(network, layout, None)

    def write_and_check(temporary: Path) -> None:
        write(temporary, tensors, text, container)
        again = open_weights(temporary).tensors
        state = network.state_dict()
        # A layout may leave out counters, and the classifier that its project's backbones do not have.
        wrong = [name for name, value in again.items() if name not in state or not torch.equal(value, state[name])]
        if wrong or len(again) != len(tensors):
            raise WeightsError(f"{target}: not kept, {(*wrong, 'a tensor')[0]} did not come back as it was written")

    write_whole(target, write_and_check)
    return Conversion(read, name, len(tensors), notes)

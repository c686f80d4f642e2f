"""torch's own kinds of files: torch.export (.pt2) and TorchScript."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import ExportError
from ..common.files import checked_file
from .graph import INPUT, ExportGraph, ExportOptions
from .metadata import KEY, dump, parse
from .quiet import first_line, quiet

Loaded = tuple[Callable[[Tensor], dict[str, Tensor]], dict[str, Any]]


def write_pt2(graph: ExportGraph, path: Path, options: ExportOptions, metadata: Mapping[str, Any]) -> None:
    """Write a graph through torch.export.

    Raises:
        ExportError: torch cannot, or is too old.
    """
    if not hasattr(torch.export.Dim, "DYNAMIC"):
        raise ExportError(f"{path.name}: torch {torch.__version__} is too old for torch.export files; 2.6 is needed")
    any_size = torch.export.Dim.DYNAMIC
    shapes = {INPUT: {0: any_size, 2: any_size, 3: any_size}} if options.dynamic else None
    images = graph.example(options.shape_to_trace())
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(graph, (images,), dynamic_shapes=shapes, strict=False)
            if options.dynamic:
                drop_guards(program)
            _drop_traces(program)
            with checked_file(path) as file:
                torch.export.save(program, file, extra_files={KEY: dump(dict(metadata))})
    except OSError:  # of the disk
        raise
    except Exception as error:  # torch.export raises whatever it stumbled over
        raise ExportError(f"{path.name}: torch.export cannot write it: {first_line(error)}") from error


def drop_guards(program: torch.export.ExportedProgram) -> None:
    """Take out the comparisons of sizes that tracing came across, in place.

    torch from 2.9 on writes them into the file, which then refuses other images: shape inference of pooling looks at
    the parity of a size, though its result is the same formula for either. The ranges of sizes stay.
    """
    if hasattr(program, "_guards_code"):
        program._guards_code = []


def _drop_traces(program: torch.export.ExportedProgram) -> None:
    """Take out where in which file each operation came from: paths of the machine that the file is made on."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def load_pt2(path: Path) -> Loaded:
    """Return a function from images to stages, and the file's metadata.

    Raises:
        ExportError: torch does not take it.
    """
    files = {KEY: ""}
    with _opening(path):
        module = torch.export.load(path, extra_files=files).module()
    return _without_gradients(module), parse(files[KEY])


def write_torchscript(graph: ExportGraph, path: Path, options: ExportOptions, metadata: Mapping[str, Any]) -> None:
    """Write a graph as TorchScript, by tracing.

    Raises:
        ExportError: torch cannot.
    """
    images = graph.example(options.shape_to_trace())
    try:
        with quiet(), torch.no_grad():
            # Not strict: dicts may come out. The check that follows runs the file itself.
            traced = torch.jit.trace(graph, (images,), strict=False, check_trace=False)
            archive = io.BytesIO()
            torch.jit.save(traced, archive, _extra_files={KEY: dump(dict(metadata))})
        _copy_without_sources(archive, path)
    except OSError:  # of the disk
        raise
    except Exception as error:  # torch.jit raises whatever it stumbled over
        raise ExportError(f"{path.name}: torch.jit.trace cannot write it: {first_line(error)}") from error


def _copy_without_sources(archive: io.BytesIO, path: Path) -> None:
    """Write a TorchScript archive without its *.debug_pkl: where each line came from, with paths of this machine."""
    with zipfile.ZipFile(archive) as read, zipfile.ZipFile(path, "w") as written:
        for entry in read.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                written.writestr(entry, read.read(entry))


def load_torchscript(path: Path) -> Loaded:
    """Return a function from images to stages, and the file's metadata.

    Raises:
        ExportError: torch does not take it.
    """
    files = {KEY: ""}
    with _opening(path):
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=files)
    return _without_gradients(module), parse(files[KEY])


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:  # broken files make torch raise all kinds
        raise ExportError(f"{path.name}: torch does not take it: {first_line(error)}") from error


def _without_gradients(module: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[Tensor], dict[str, Tensor]]:
    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), quiet():
            return dict(module(images))

    return run

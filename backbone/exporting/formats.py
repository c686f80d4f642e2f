"""The kinds of files, by suffix, and running a file that was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.environment import version
from ..common.errors import ExportError
from ..common.text import nearest
from ..weights.save import WRITERS
from .check import Run
from .onnx_file import load_onnx, write_onnx
from .openvino_file import load_openvino, write_openvino
from .quiet import require
from .torch_files import load_pt2, load_torchscript, write_pt2, write_torchscript


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        write: takes graph, path, options and metadata.
        load: returns a function from images to stages, and the file's metadata.
        runtime: the distribution that runs it.
        packages: what writing it needs beside torch.
        through_onnx: whether an ONNX exporter is chosen.
    """

    name: str
    write: Callable
    load: Callable[[Path], tuple[Run, dict[str, Any]]]
    runtime: str
    packages: tuple[str, ...] = ()
    through_onnx: bool = False


ONNX = Format("ONNX", write_onnx, load_onnx, "onnxruntime", ("onnx", "onnxruntime"), through_onnx=True)
OPENVINO = Format("OpenVINO", write_openvino, load_openvino, "openvino", ("onnx", "openvino"), through_onnx=True)
TORCHSCRIPT = Format("TorchScript", write_torchscript, load_torchscript, "torch")
FORMATS = {
    ".onnx": ONNX,
    ".pt2": Format("torch.export", write_pt2, load_pt2, "torch"),
    ".torchscript": TORCHSCRIPT,
    ".ts": TORCHSCRIPT,
    ".xml": OPENVINO,
}
WEIGHTS_SUFFIXES = tuple(sorted(WRITERS))


def format_of(path: Path) -> Format:
    """Return what a file's suffix stands for.

    Raises:
        ExportError: nothing, or a package that it needs is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        known = [*FORMATS, *WEIGHTS_SUFFIXES]
        guess = nearest(suffix, known) if suffix else ""
        known_ones = f"export writes {', '.join(FORMATS)}, and weights alone as {', '.join(WEIGHTS_SUFFIXES)}"
        raise ExportError(f"{path}: unknown suffix {suffix!r}{guess if 'mean' in guess else ''}; {known_ones}")
    kind = FORMATS[suffix]
    require(kind.packages, f"{path}: {kind.name}")
    return kind


@dataclass(frozen=True)
class ExportedNetwork:
    """A file in its own runtime, on the CPU.

    Attributes:
        metadata: as `export` wrote it; {} for a file that it did not write.
        runtime: name and version.
    """

    path: Path
    metadata: dict[str, Any]
    runtime: str
    run: Run

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the stages.

        Args:
            images: (N, 3, H, W), as `metadata["input"]` says.
        """
        return self.run(images)


def load_exported(path: str | Path) -> ExportedNetwork:
    """Open a file that `export` wrote, in its own runtime.

    TorchScript and torch.export files can hold code: open only those that you trust.

    Raises:
        ExportError: no such file, an unknown suffix, a missing package, or the runtime does not take it.
    """
    path = Path(path)
    if path.suffix.lower() in WEIGHTS_SUFFIXES:
        raise ExportError(f"{path}: holds weights alone; backbone.load_weights reads it into a network")
    kind = format_of(path)
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    run, metadata = kind.load(path)
    return ExportedNetwork(path, metadata, runtime_of(kind), run)


def runtime_of(kind: Format) -> str:
    """Return name and version of what runs files of this kind."""
    return f"{kind.runtime} {version(kind.runtime)}"

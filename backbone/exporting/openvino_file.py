"""OpenVINO's .xml with its .bin, from an ONNX graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import ExportError
from .graph import INPUT, ExportGraph, ExportOptions
from .metadata import KEY, dump, parse
from .onnx_file import write_onnx
from .quiet import first_line, quiet

# Without it a CPU with AMX computes in bfloat16, and its results blur the comparison.
FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}


def write_openvino(graph: ExportGraph, path: Path, options: ExportOptions, metadata: Mapping[str, Any]) -> None:
    """Write a graph for OpenVINO, weights in float32.

    Raises:
        ExportError: the ONNX exporter or OpenVINO cannot.
    """
    import openvino

    onnx_path = path.with_suffix(".onnx")
    write_onnx(graph, onnx_path, options, metadata)
    try:
        with quiet():
            model = openvino.Core().read_model(str(onnx_path))
            model.set_rt_info(dump(dict(metadata)), KEY)
            # OpenVINO does not say that a disk is full: the room for its weights is taken before.
            shutil.copyfile(onnx_path, path.with_suffix(".bin"))
            openvino.save_model(model, str(path), compress_to_fp16=False)
    except OSError:  # of the disk
        raise
    except Exception as error:  # openvino raises RuntimeError and its own kinds
        raise ExportError(f"{path.name}: OpenVINO cannot write it: {first_line(error)}") from error
    del model  # it holds the ONNX file open
    onnx_path.unlink()


def load_openvino(path: Path) -> tuple[Callable[[Tensor], dict[str, Tensor]], dict[str, Any]]:
    """Return a function from images to stages, which runs on the CPU in float32, and the file's metadata."""
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        metadata = parse(model.get_rt_info(KEY).astype(str)) if model.has_rt_info(KEY) else {}
        compiled = core.compile_model(model, "CPU", FULL_PRECISION)
    except Exception as error:  # openvino raises RuntimeError and its own kinds
        raise ExportError(f"{path.name}: OpenVINO does not take it: {first_line(error)}") from error
    names = [next(iter(output.get_names())) for output in compiled.outputs]

    def run(images: Tensor) -> dict[str, Tensor]:
        values = compiled({INPUT: images.numpy()})
        return {name: torch.from_numpy(values[index].copy()) for index, name in enumerate(names)}

    return run, metadata

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
from .quiet import first_line, last_line, quiet

# What OpenVINO calls the types that not every processor has.
NEEDS = {"bf16": "BF16", "f16": "FP16"}


def write_openvino(graph: ExportGraph, path: Path, options: ExportOptions, metadata: Mapping[str, Any]) -> None:
    """Write a graph for OpenVINO, weights in float32.

    Raises:
        ExportError: the ONNX exporter or OpenVINO cannot.
    """
    onnx_path = path.with_suffix(".onnx")
    write_onnx(graph, onnx_path, options, metadata)
    convert_onnx(onnx_path, path, metadata)
    onnx_path.unlink()


def convert_onnx(onnx_path: Path, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write what an ONNX file holds for OpenVINO, its weights in the type that they have there.

    Raises:
        ExportError: OpenVINO cannot.
    """
    import openvino

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


def open_openvino(path: Path, precision: str = "f32") -> tuple[Any, dict[str, Any]]:
    """Open an .xml or .onnx file on the CPU; return OpenVINO's compiled model and the file's metadata.

    Args:
        precision: what it computes in, as OpenVINO names it. A CPU with AMX would take bfloat16 by itself, which blurs
            comparisons.

    Raises:
        ExportError: OpenVINO does not take the file, or has no such precision on this processor.
    """
    import openvino

    core = openvino.Core()
    # OpenVINO takes the hint on every processor, and computes in float32 where the type is missing.
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if (needs := NEEDS.get(precision)) and needs not in able:
        raise ExportError(f"{path.name}: OpenVINO has no {precision} on this processor, only {', '.join(able)}")
    try:
        model = core.read_model(str(path))
        # OpenVINO keeps what an ONNX file says of itself under "framework".
        keys = next((keys for keys in (KEY, ["framework", KEY]) if model.has_rt_info(keys)), None)
        metadata = parse(model.get_rt_info(keys).astype(str)) if keys else {}
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # openvino raises RuntimeError and its own kinds
        raise ExportError(f"{path.name}: OpenVINO does not take it: {last_line(error)}; export it again") from error
    return compiled, metadata


def load_openvino(path: Path) -> tuple[Callable[[Tensor], dict[str, Tensor]], dict[str, Any]]:
    """Return a function from images to stages, which runs on the CPU in float32, and the file's metadata."""
    compiled, metadata = open_openvino(path)
    names = [next(iter(output.get_names())) for output in compiled.outputs]

    def run(images: Tensor) -> dict[str, Tensor]:
        values = compiled({INPUT: images.numpy()})
        return {name: torch.from_numpy(values[index].copy()) for index, name in enumerate(names)}

    return run, metadata

"""Static quantisation of a detector's network, by the ranges of its values on training images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backbone import DataError, ExportError
from backbone.common.environment import version
from backbone.common.images import read_image
from backbone.common.images.inputs import find_inputs
from backbone.engine.image_progress import ImageProgress
from backbone.exporting.quiet import first_line, quiet

from ..data.checks import raise_on_errors
from ..data.own import find_place, read_place
from ..inference.exported import inputs_of
from ..inference.inputs import PICTURE
from ..inference.transform import TestTransform

# Smallest and largest values change little after that.
IMAGES = 100
# The network below the pyramid and the heads: its values are mostly those behind a ReLU. Pyramid and RPN in int8 cost
# 0.05 AP in OpenVINO.
NETWORK = re.compile(r"/backbone/(?!fpn_|top_block|Add)|/res5/")


def calibration_images(given: str, output: Path) -> list[Path]:
    """Return up to IMAGES files, evenly over the training part of a data set in any form, an image folder or a glob.

    Raises:
        DataError: there are none.
    """
    try:
        place = find_place(given, "train")
    except DataError:
        files = find_inputs(given, output, PICTURE, "--calibrate")
    else:
        own = read_place(place)
        raise_on_errors(own.faults, str(place.source), flags=place.flags)
        files = [Path(own.folder, record["file_name"]) for record in own.data["images"]]
        if not files:
            raise DataError(f"--calibrate {given}: {place.source} has no images")
    chosen = np.linspace(0, len(files) - 1, min(len(files), IMAGES)).round().astype(int)
    return [files[index] for index in chosen]


def describe(images: list[Path]) -> dict[str, Any]:
    """Return what the metadata say of the quantisation."""
    return {
        "method": f"ONNX Runtime {version('onnxruntime')}, static, QuantizeLinear and DequantizeLinear",
        "weights": "int8 of 7 bits, one scale a channel",
        "activations": "uint8, smallest to largest value",
        "calibrated_on": f"{len(images)} images",
        "layers": "the network's convolutions, and sums and pooling between them",
        "float32": "pyramid, RPN and heads",
    }


def quantise(path: Path, images: list[Path], transform: TestTransform, metadata: dict[str, Any]) -> None:
    """Quantise a float32 ONNX file in place.

    Args:
        images: to calibrate on; metadata: the file's.

    Raises:
        DataError: an image cannot be read.
        ExportError: ONNX Runtime cannot quantise it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = _samples(images, transform, metadata)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    nodes = [node for node in onnx.load(str(path), load_external_data=False).graph.node if _is_quantised(node)]
    target = path.with_name(f"int8_{path.name}")
    try:
        with quiet():
            quantize_static(
                *(str(path), str(target), Reader()),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=sorted({node.op_type for node in nodes}),
                nodes_to_quantize=[node.name for node in nodes],
                per_channel=True,
                # 8 bits overflow the 16-bit sums of processors without VNNI.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    except (DataError, OSError):
        raise
    except Exception as error:  # onnxruntime raises whatever it stumbled over
        raise ExportError(f"{path.name}: ONNX Runtime cannot quantise it: {first_line(error)}") from error
    target.replace(path)


def _is_quantised(node: Any) -> bool:
    # Sums and pooling stay in int8 between the convolutions.
    return node.op_type in ("Conv", "Add", "MaxPool") and NETWORK.match(node.name) is not None


def _samples(images: list[Path], transform: TestTransform, metadata: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    with ImageProgress(len(images), "calibrating", visible=True) as progress:
        for file in images:
            sample = transform(read_image(file))
            yield inputs_of(metadata, sample["image"][None], (sample["height"], sample["width"]))
            progress.add(1)

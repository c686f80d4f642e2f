"""Caffe's .caffemodel files, read without Caffe.

Of Caffe's schema (src/caffe/proto/caffe.proto) this knows the few fields that hold weights, in the layers of today
(`layer`) and in those of 2014 (`layers`, VGG-16's release): names, blobs, a convolution's stride and a BatchNorm's eps.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.errors import WeightsError
from .protobuf import BYTES, FIXED32, VARINT, Reader, WireError, varints

# NetParameter: the wire types of its fields; 2 holds the old layers, 100 the new ones.
NET_FIELDS = {1: (BYTES,), 2: (BYTES,), 3: (BYTES,), 4: (VARINT, BYTES), 5: (VARINT,), 6: (BYTES,), 7: (VARINT,)}
NET_FIELDS |= {8: (BYTES,), 100: (BYTES,)}
OLD_LAYERS, NEW_LAYERS = 2, 100
MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class LayerFields:
    """Field numbers of a layer's message."""

    name: int
    blobs: int
    convolution: int
    batch_norm: int | None


LAYER_FIELDS = {OLD_LAYERS: LayerFields(4, 6, 10, None), NEW_LAYERS: LayerFields(1, 7, 106, 139)}


@dataclass
class Layer:
    """A layer's name and blobs; stride of a convolution and eps of a BatchNorm where the file tells them."""

    name: str = ""
    blobs: list[np.ndarray] = field(default_factory=list)
    stride: int | None = None
    eps: float | None = None


def looks_like_caffemodel(path: Path) -> bool:
    """Whether the whole file reads as a NetParameter with layers; the layers themselves are not looked into."""
    found = False
    try:
        for number, wire, _ in Reader().fields(_bytes_of(path)):
            if wire not in NET_FIELDS.get(number, ()):
                return False
            found = found or number in LAYER_FIELDS
    except (WireError, OSError, ValueError):
        return False
    return found


def read_caffemodel(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the blobs of a .caffemodel file.

    Returns:
        {"<layer>/<number of the blob>": tensor} with the blob's shape, and what else matters of the layers as text:
        {"<layer>/stride": "2", "<layer>/eps": "1e-05"}.

    Raises:
        WeightsError: cut off, damaged, or without layers that hold weights.
    """
    reader, layers = Reader(), {}
    try:
        for number, wire, value in reader.fields(_bytes_of(path)):
            if wire not in NET_FIELDS.get(number, (wire,)):
                raise WireError(f"wire type {wire} of field {number}")
            if number in LAYER_FIELDS:
                layer = _layer(reader, value, LAYER_FIELDS[number])
                if layer.blobs and layer.name in layers:
                    raise WireError(f"two layers {layer.name!r}")
                if layer.blobs:
                    layers[layer.name] = layer
    except WireError as error:
        raise WeightsError(f"{path}: not a whole .caffemodel file ({error}); copy or download it again") from None
    if not layers:
        raise WeightsError(f"{path}: a .caffemodel file whose layers hold no weights")
    tensors, facts = {}, {}
    for name, layer in layers.items():
        tensors |= {f"{name}/{index}": torch.from_numpy(blob) for index, blob in enumerate(layer.blobs)}
        facts |= {f"{name}/{key}": str(getattr(layer, key)) for key in ("stride", "eps") if getattr(layer, key)}
    return tensors, facts


def _bytes_of(path: Path) -> memoryview:
    """Map the file; no more of it comes into memory than is read."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _layer(reader: Reader, message: memoryview, numbers: LayerFields) -> Layer:
    layer = Layer()
    for number, wire, value in reader.fields(message):
        if number == numbers.name and wire == BYTES:
            layer.name = bytes(value[:1000]).decode("utf-8", "replace")
        elif number == numbers.blobs and wire == BYTES:
            layer.blobs.append(_blob(reader, value))
        elif number == numbers.convolution and wire == BYTES:
            layer.stride = _stride(reader, value)
        elif number == numbers.batch_norm and wire == BYTES:
            layer.eps = _eps(reader, value)
    return layer


def _blob(reader: Reader, message: memoryview) -> np.ndarray:
    """Read a BlobProto: 1..4 the old shape, 5 floats, 7 the shape, 8 doubles."""
    old_shape, shape = [0, 0, 0, 0], None
    parts: dict[int, list[memoryview]] = {5: [], 8: []}
    for number, wire, value in reader.fields(message):
        if 1 <= number <= 4 and wire == VARINT:
            old_shape[number - 1] = value
        elif number == 7 and wire == BYTES:
            shape = _shape(reader, value)
        elif number in parts and wire != VARINT:
            parts[number].append(value)
    dtype, kind = ("<f8", np.float64) if parts[8] else ("<f4", np.float32)
    chunks = parts[8] or parts[5]
    size = np.dtype(dtype).itemsize
    if any(len(chunk) % size for chunk in chunks):
        raise WireError("a blob whose data are cut off")
    shape = old_shape if shape is None else shape
    count = sum(len(chunk) for chunk in chunks) // size
    # In Python's numbers: a product of hostile dimensions must not wrap around.
    if math.prod(shape) != count:
        raise WireError(f"a blob of shape {shape} with {count:,} numbers")
    values = [np.frombuffer(chunk, dtype) for chunk in chunks] or [np.empty(0, dtype)]
    return np.concatenate(values).astype(kind, copy=False).reshape(shape)


def _shape(reader: Reader, message: memoryview) -> list[int]:
    dimensions: list[int] = []
    for number, wire, value in reader.fields(message):
        if number == 1 and wire in (VARINT, BYTES):
            if len(dimensions) >= MOST_DIMENSIONS or (wire == BYTES and len(value) > 10 * MOST_DIMENSIONS):
                raise WireError("a blob of too many dimensions")
            dimensions += [value] if wire == VARINT else varints(value)
    return dimensions


def _stride(reader: Reader, message: memoryview) -> int | None:
    """Read a ConvolutionParameter's stride (6)."""
    for number, wire, value in reader.fields(message):
        if number == 6 and wire in (VARINT, BYTES):
            return value if wire == VARINT else next(iter(varints(value[:1])), None)
    return None


def _eps(reader: Reader, message: memoryview) -> float | None:
    """Read a BatchNormParameter's eps (3)."""
    for number, wire, value in reader.fields(message):
        if number == 3 and wire == FIXED32:
            return struct.unpack("<f", value)[0]
    return None

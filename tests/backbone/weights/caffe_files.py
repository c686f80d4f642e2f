"""Small .caffemodel files, encoded by the protobuf library itself from Caffe's schema.

The schema is the part of BVLC/caffe's src/caffe/proto/caffe.proto that holds weights; numbers and types are its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SCHEMA = {
    "BlobShape": [("dim", 1, "repeated int64 packed")],
    "BlobProto": [
        ("num", 1, "int32"),
        ("channels", 2, "int32"),
        ("height", 3, "int32"),
        ("width", 4, "int32"),
        ("data", 5, "repeated float packed"),
        ("diff", 6, "repeated float packed"),
        ("shape", 7, "BlobShape"),
        ("double_data", 8, "repeated double packed"),
    ],
    "ConvolutionParameter": [
        ("num_output", 1, "uint32"),
        ("bias_term", 2, "bool"),
        ("pad", 3, "repeated uint32"),
        ("kernel_size", 4, "repeated uint32"),
        ("stride", 6, "repeated uint32"),
    ],
    "BatchNormParameter": [("use_global_stats", 1, "bool"), ("eps", 3, "float")],
    "V1LayerParameter": [
        ("bottom", 2, "repeated string"),
        ("name", 4, "string"),
        ("type", 5, "int32"),
        ("blobs", 6, "repeated BlobProto"),
        ("convolution_param", 10, "ConvolutionParameter"),
    ],
    "LayerParameter": [
        ("name", 1, "string"),
        ("type", 2, "string"),
        ("bottom", 3, "repeated string"),
        ("blobs", 7, "repeated BlobProto"),
        ("convolution_param", 106, "ConvolutionParameter"),
        ("batch_norm_param", 139, "BatchNormParameter"),
    ],
    "NetParameter": [
        ("name", 1, "string"),
        ("layers", 2, "repeated V1LayerParameter"),
        ("input", 3, "repeated string"),
        ("input_dim", 4, "repeated int32"),
        ("debug_info", 7, "bool"),
        ("input_shape", 8, "repeated BlobShape"),
        ("layer", 100, "repeated LayerParameter"),
    ],
}


def _messages(packed: bool) -> dict[str, type]:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            words = kind.replace("repeated ", "").split()
            repeated = "repeated" in kind
            label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            entry = message.field.add(name=field_name, number=number, label=label)
            if words[0] in SCHEMA:
                entry.type, entry.type_name = field_type.TYPE_MESSAGE, f".caffe.{words[0]}"
            else:
                entry.type = getattr(field_type, f"TYPE_{words[0].upper()}")
            if "packed" in words:
                entry.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in SCHEMA}


@dataclass
class CaffeLayer:
    """A layer of a network in Caffe."""

    name: str
    kind: str
    blobs: list[np.ndarray] = field(default_factory=list)
    stride: int = 1
    eps: float | None = None


def encode(
    layers: list[CaffeLayer], *, old: bool = False, double: bool = False, packed: bool = True, parameters: bool = True
) -> bytes:
    """Return the file's bytes.

    Args:
        old: layers and blob shapes of 2014: (num, channels, height, width).
        double: blobs of doubles.
        packed: lists of numbers as one field each, as Caffe writes them.
        parameters: write strides and eps too.
    """
    messages = _messages(packed)
    net = messages["NetParameter"](name="a network", input=["data"], input_dim=[1, 3, 224, 224])
    for layer in layers:
        entry = (net.layers if old else net.layer).add(name=layer.name, bottom=["below"])
        entry.type = 4 if old else layer.kind
        if parameters and layer.kind == "Convolution":
            entry.convolution_param.num_output = layer.blobs[0].shape[0]
            if layer.stride != 1:
                entry.convolution_param.stride.append(layer.stride)
        if parameters and layer.eps is not None:
            entry.batch_norm_param.eps = layer.eps
        for blob in layer.blobs:
            _add_blob(entry.blobs.add(), blob, old=old, double=double)
    return net.SerializeToString()


def _add_blob(entry: Any, blob: np.ndarray, *, old: bool, double: bool) -> None:
    if old:
        shape = (1,) * (4 - blob.ndim) + blob.shape
        entry.num, entry.channels, entry.height, entry.width = shape
    else:
        entry.shape.dim.extend(blob.shape)
    (entry.double_data if double else entry.data).extend(blob.ravel().tolist())


def write(path: Path, layers: list[CaffeLayer], **keywords: bool) -> Path:
    path.write_bytes(encode(layers, **keywords))
    return path


def resnet(
    blocks: tuple[int, ...], *, numbered: bool, first_bias: bool, widths: tuple[int, ...] = (64, 128, 256, 512)
) -> list[CaffeLayer]:
    """A bottleneck ResNet of random weights as the authors' release has it.

    Args:
        numbered: blocks are named a, b1, b2 as in ResNet-101 and -152, else a, b, c.
        first_bias: conv1 has a bias, as in ResNet-50.
    """
    rng = np.random.default_rng(0)
    layers: list[CaffeLayer] = []

    def unit(convolution: str, norm: str, shape: tuple[int, ...], stride: int = 1, bias: bool = False) -> None:
        weight = rng.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        blobs = [weight] + ([rng.standard_normal(shape[0], np.float32)] if bias else [])
        layers.append(CaffeLayer(convolution, "Convolution", blobs, stride))
        outputs, factor = shape[0], np.float32(999.98)
        mean, variance = rng.standard_normal(outputs) * 0.2, rng.random(outputs) + 0.5
        sums = [(mean * factor).astype(np.float32), (variance * factor).astype(np.float32), np.array([factor])]
        layers.append(CaffeLayer(f"bn{norm}", "BatchNorm", sums))
        affine = [(rng.random(outputs) * 0.5 + 0.4).astype(np.float32)]
        affine.append((rng.standard_normal(outputs) * 0.1).astype(np.float32))
        layers.append(CaffeLayer(f"scale{norm}", "Scale", affine))

    unit("conv1", "_conv1", (widths[0], 3, 7, 7), 2, first_bias)
    channels = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths), 2):
        for index in range(count):
            letter = f"b{index}" if numbered and index else "abcdefgh"[index]
            place, stride = f"{stage}{letter}_branch", 2 if index == 0 and stage > 2 else 1
            if index == 0:
                unit(f"res{place}1", f"{place}1", (4 * width, channels, 1, 1), stride)
            unit(f"res{place}2a", f"{place}2a", (width, channels, 1, 1), stride)
            unit(f"res{place}2b", f"{place}2b", (width, width, 3, 3))
            unit(f"res{place}2c", f"{place}2c", (4 * width, width, 1, 1))
            layers.append(CaffeLayer(f"res{stage}{letter}_relu", "ReLU"))
            channels = 4 * width
    weight = (rng.standard_normal((10, channels)) * 0.02).astype(np.float32)
    layers.append(CaffeLayer("fc1000", "InnerProduct", [weight, np.arange(10, dtype=np.float32)]))
    return layers


def vgg16() -> list[CaffeLayer]:
    """VGG-16's convolutions, of random weights."""
    rng = np.random.default_rng(0)
    layers, channels = [], 3
    for stage, (count, width) in enumerate(zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)), 1):
        for index in range(1, count + 1):
            weight = rng.standard_normal((width, channels, 3, 3), np.float32) * np.float32((2 / channels / 9) ** 0.5)
            bias = rng.standard_normal(width, np.float32) * np.float32(0.1)
            layers.append(CaffeLayer(f"conv{stage}_{index}", "Convolution", [weight, bias]))
            channels = width
    return layers

"""Caffe's files, written by the protobuf library, against Caffe's own arithmetic written out; and hostile ones."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_files import CaffeLayer, encode, resnet, vgg16, write
from other_projects import empty
from randomize import relative_error
from torch import Tensor, nn
from torch.nn import functional as F

import backbone
from backbone.weights import open_weights, read_file, read_weight_metadata
from backbone.weights.caffemodel import read_caffemodel
from backbone.weights.files import file_kind
from backbone.weights.layouts.base import EPS

CAFFE = {"stride_in_1x1": True, "ceil_pool": True}


class CaffeNet:
    """Layers of Caffe as they compute: BatchNorm with its factor, then Scale; pooling that rounds up, unpadded."""

    def __init__(self, layers: list[CaffeLayer]) -> None:
        self.blobs = {layer.name: [torch.from_numpy(blob).double() for blob in layer.blobs] for layer in layers}
        self.eps = {layer.name: layer.eps or 1e-5 for layer in layers}

    def unit(self, x: Tensor, convolution: str, norm: str, stride: int = 1, pad: int = 0) -> Tensor:
        x = F.conv2d(x, *self.blobs[convolution], stride=stride, padding=pad)
        mean, variance, factor = self.blobs[f"bn{norm}"]
        factor = 0 if factor == 0 else 1 / factor
        x = (x - self.column(mean * factor)) / (self.column(variance * factor) + self.eps[f"bn{norm}"]).sqrt()
        scale, shift = self.blobs[f"scale{norm}"]
        return x * self.column(scale) + self.column(shift)

    @staticmethod
    def column(values: Tensor) -> Tensor:
        return values.view(1, -1, 1, 1)

    @staticmethod
    def pool(x: Tensor, kernel: int) -> Tensor:
        """Pooling of stride 2 with ceil((size - kernel) / 2) + 1 outputs (pooling_layer.cpp)."""
        sides = [2 * (-(-(side - kernel) // 2)) + kernel for side in x.shape[2:]]
        right, below = sides[1] - x.shape[3], sides[0] - x.shape[2]
        return F.max_pool2d(F.pad(x, (0, right, 0, below), value=-torch.inf), kernel, 2)

    def resnet(self, images: Tensor, blocks: tuple[int, ...], numbered: bool) -> dict[str, Tensor]:
        x = self.pool(self.unit(images, "conv1", "_conv1", 2, 3).relu(), 3)
        found = {"stem": x}
        for stage, count in enumerate(blocks, 2):
            for index in range(count):
                letter = f"b{index}" if numbered and index else "abcdefgh"[index]
                place, stride = f"{stage}{letter}_branch", 2 if index == 0 and stage > 2 else 1
                out = self.unit(x, f"res{place}2a", f"{place}2a", stride).relu()
                out = self.unit(out, f"res{place}2b", f"{place}2b", pad=1).relu()
                out = self.unit(out, f"res{place}2c", f"{place}2c")
                x = (out + (self.unit(x, f"res{place}1", f"{place}1", stride) if index == 0 else x)).relu()
            found[f"res{stage}"] = x
        if len(blocks) == 4:
            weight, bias = self.blobs["fc1000"]
            found["logits"] = x.mean((2, 3)) @ weight.T + bias
        return found

    def vgg(self, images: Tensor) -> dict[str, Tensor]:
        x, found = images, {}
        for stage, count in enumerate((2, 2, 3, 3, 3), 1):
            x = self.pool(x, 2) if stage > 1 else x
            for index in range(1, count + 1):
                x = F.conv2d(x, *self.blobs[f"conv{stage}_{index}"], padding=1).relu()
            found[f"conv{stage}"] = x
        return found


STAGES = ("stem", "res2", "res3", "res4", "res5", "logits")


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[CaffeLayer], Path]:
    layers = resnet((3, 4, 6, 3), numbered=False, first_bias=True)
    return layers, write(tmp_path_factory.mktemp("caffe") / "ResNet-50-model.caffemodel", layers)


@torch.no_grad()
@pytest.mark.proves("caffe", "backbones", "in", "plain loops of Caffe's layers")
def test_resnet50(resnet50):
    """Bias of conv1, moving-average factor, stride in the 1x1, pooling that rounds up; on images of an odd size."""
    layers, path = resnet50
    network = empty(lambda: backbone.create("resnet50", num_classes=10, out_features=STAGES, **CAFFE))
    report = backbone.load_weights(network, path)
    assert report.fits and (report.kind, report.layout) == ("caffemodel", "caffe")
    images = torch.randn(1, 3, 99, 130, generator=torch.Generator().manual_seed(0))
    expected = CaffeNet(layers).resnet(images.double(), (3, 4, 6, 3), numbered=False)
    for stage, value in network(images).items():
        assert value.shape == expected[stage].shape
        assert relative_error(value.double(), expected[stage]) < 1e-5, stage


@torch.no_grad()
def test_frozen_bn_and_pooling_set_on_the_network(resnet50):
    layers, path = resnet50
    network = empty(lambda: backbone.create("resnet50", norm="frozen_bn", out_features=("res2",), stride_in_1x1=True))
    report = backbone.load_weights(network, path)
    assert report.notes == ["pooling set to round up without padding"]
    assert network.ceil_pool and network.maxpool.ceil_mode and network.maxpool.padding == 0
    images = torch.randn(1, 3, 63, 64)
    expected = CaffeNet(layers).resnet(images.double(), (3,), numbered=False)["res2"]
    assert relative_error(network(images)["res2"].double(), expected) < 1e-5
    assert str(network.preprocessing) == "BGR 0..255, mean 103.063, 115.903, 123.152, std 1, 1, 1"


def test_the_stride_is_checked(resnet50):
    _, path = resnet50
    network = backbone.create("resnet50", out_features=("res2",))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(backbone.WeightsError, match="create it with stride_in_1x1=True") as caught:
            backbone.load_weights(network, path, strict=strict)
        assert str(path) in str(caught.value)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert read_weight_metadata(path).keywords() == CAFFE


@pytest.mark.parametrize("how", [{"double": True}, {"packed": False}, {"old": True}, {"parameters": False}])
def test_other_encodings_of_the_same(how, tmp_path):
    layers = resnet((1, 1), numbered=False, first_bias=True, widths=(4, 8))
    truth = open_weights(write(tmp_path / "a.caffemodel", layers))
    found = open_weights(write(tmp_path / "b.caffemodel", layers, **how))
    assert found.tensors.keys() == truth.tensors.keys() and len(truth.tensors) == 47
    for name, value in truth.tensors.items():
        assert torch.equal(found.tensors[name], value), name
    assert found.weight_metadata == truth.weight_metadata


def test_names_of_the_deeper_networks(tmp_path):
    """ResNet-101's blocks are a, b1, b2, ...; every name of ours is there, and no other."""
    for name, blocks in (("resnet101", (3, 4, 23, 3)), ("resnet152", (3, 8, 36, 3))):
        layers = resnet(blocks, numbered=True, first_bias=False, widths=(1, 1, 1, 1))
        weights = open_weights(write(tmp_path / f"{name}.caffemodel", layers))
        with torch.device("meta"):
            network = backbone.create(name, num_classes=10, norm="frozen_bn")
        assert weights.tensors.keys() == network.state_dict().keys()


def test_eps_and_factor_of_batch_norm(tmp_path):
    """Another eps than ours gives the same scale; a factor of 0 makes Caffe's statistics 0."""
    layers = resnet((1,), numbered=False, first_bias=False, widths=(4,))
    norms = [layer for layer in layers if layer.kind == "BatchNorm"]
    norms[0].eps = 1e-2
    norms[1].blobs[2][:] = 0
    tensors = open_weights(write(tmp_path / "a.caffemodel", layers)).tensors
    sums, factor = norms[0].blobs[1].astype(np.float64), float(norms[0].blobs[2][0])
    assert np.allclose(tensors["bn1.running_var"].numpy() + EPS, sums / factor + 1e-2, rtol=1e-6)
    shortcut = "layer1.0.downsample.1"
    assert norms[1].name == "bn2a_branch1"
    assert not tensors[f"{shortcut}.running_mean"].any() and not tensors[f"{shortcut}.running_var"].abs().max() > 1e-12
    assert {layer.eps for layer in backbone.create("resnet18").modules() if hasattr(layer, "eps")} == {EPS}


def test_scale_without_batch_norm_and_the_reverse(tmp_path):
    layers = resnet((1,), numbered=False, first_bias=True, widths=(4,))
    conv1 = layers[0].blobs
    kept = [layer for layer in layers if layer.name not in ("bn_conv1", "scale2a_branch1")]
    tensors = open_weights(write(tmp_path / "a.caffemodel", kept)).tensors
    scale = (tensors["bn1.running_var"] + EPS).rsqrt() * tensors["bn1.weight"]
    assert torch.allclose(scale, torch.from_numpy(layers[2].blobs[0]), rtol=1e-6)
    assert torch.equal(tensors["bn1.running_mean"], -torch.from_numpy(conv1[1]))
    assert torch.equal(tensors["layer1.0.downsample.1.weight"], torch.ones(16))
    assert not tensors["layer1.0.downsample.1.bias"].any()


def test_the_stride_that_the_file_tells(tmp_path):
    """A network of one's own, trained in Caffe with the stride in the 3x3."""
    layers = resnet((1, 1), numbered=False, first_bias=False, widths=(4, 8))
    assert read_weight_metadata(write(tmp_path / "a.caffemodel", layers)).stride_in_1x1 is True
    strides = {layer.name: layer for layer in layers}
    strides["res3a_branch2a"].stride, strides["res3a_branch2b"].stride = 1, 2
    assert read_weight_metadata(write(tmp_path / "b.caffemodel", layers)).stride_in_1x1 is False


def test_unknown_layers_are_named(tmp_path):
    layers = resnet((1,), numbered=False, first_bias=False, widths=(4,))
    layers.append(CaffeLayer("rpn_conv/3x3", "Convolution", [np.ones((1, 1, 3, 3), np.float32)]))
    weights = open_weights(write(tmp_path / "a.caffemodel", layers))
    assert "rpn_conv/3x3/0" not in weights.tensors
    assert any("rpn_conv/3x3" in name for name in weights.beside)


# -- VGG-16


@torch.no_grad()
def test_vgg16(tmp_path):
    """The release of 2014: old layers, old shapes; pooling rounds up in every stage."""
    layers = vgg16()
    network = empty(lambda: backbone.create("vgg16"))
    report = backbone.load_weights(network, write(tmp_path / "VGG16.caffemodel", layers, old=True))
    assert report.fits and report.layout == "caffe"
    assert report.notes == ["pooling set to round up without padding"]
    images = torch.randn(1, 3, 69, 51)
    expected = CaffeNet(layers).vgg(images.double())
    for stage, value in network(images).items():
        assert value.shape == expected[stage].shape
        assert relative_error(value.double(), expected[stage]) < 1e-5
    assert network.preprocessing.mean == (103.939, 116.779, 123.68)
    assert network.preprocessing.channel_order == "BGR"


def test_vgg_fully_connected_layers(tmp_path):
    """Four dimensions there, two here."""
    rng = np.random.default_rng(0)
    layers = [CaffeLayer("conv1_1", "Convolution", [np.ones((1, 3, 3, 3), np.float32), np.ones(1, np.float32)])]
    sizes = {"fc6": (5, 7), "fc7": (4, 5), "fc8": (3, 4)}
    for name, shape in sizes.items():
        blobs = [rng.standard_normal(shape, np.float32), rng.standard_normal(shape[0], np.float32)]
        layers.append(CaffeLayer(name, "InnerProduct", blobs))
    tensors = open_weights(write(tmp_path / "a.caffemodel", layers, old=True)).tensors
    for index, layer in zip((0, 3, 6), layers[1:]):
        assert torch.equal(tensors[f"classifier.{index}.weight"], torch.from_numpy(layer.blobs[0]))
        assert torch.equal(tensors[f"classifier.{index}.bias"], torch.from_numpy(layer.blobs[1]))


# -- the file


def test_the_kind_follows_from_the_content(tmp_path):
    layers = resnet((1,), numbered=False, first_bias=False, widths=(4,))
    for name in ("weights.caffemodel", "weights.bin", "weights"):
        assert file_kind(write(tmp_path / name, layers)) == "caffemodel"


def test_every_blob_keeps_its_shape_and_values(tmp_path):
    blobs = [np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.zeros((0, 5), np.float32), np.float32([7])]
    tensors, _ = read_caffemodel(write(tmp_path / "a.caffemodel", [CaffeLayer("a/b", "Any", blobs)]))
    for index, blob in enumerate(blobs):
        assert tensors[f"a/b/{index}"].numpy().tobytes() == blob.tobytes()
        assert tuple(tensors[f"a/b/{index}"].shape) == blob.shape


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def record(number: int, payload: bytes, length: int | None = None) -> bytes:
    """A length-delimited field; `length` is the length that it claims."""
    return varint(number << 3 | 2) + varint(len(payload) if length is None else length) + payload


def layer_of(blob: bytes) -> bytes:
    return record(100, record(1, b"conv1") + record(7, blob))


def nested(depth: int, number: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = record(number, content)
    return content


FLOATS = struct.pack("<4f", 1, 2, 3, 4)
HOSTILE = {
    "huge layer": record(100, b"", 1 << 62),
    "huge name": record(100, record(1, b"", 1 << 40)),
    "huge blob": layer_of(record(5, FLOATS, 1 << 50)),
    "huge shape": layer_of(record(7, record(1, varint(1 << 40) * 2)) + record(5, FLOATS)),
    "shape that wraps to 0": layer_of(record(7, record(1, varint(1 << 32) * 2))),
    "negative shape": layer_of(record(7, record(1, varint((1 << 64) - 2) * 2)) + record(5, FLOATS)),
    "shape of another size": layer_of(record(7, record(1, bytes([5]))) + record(5, FLOATS)),
    "shape of many dimensions": layer_of(record(7, record(1, bytes([1]) * 10_000)) + record(5, FLOATS)),
    "no shape": layer_of(record(5, FLOATS)),
    "half a float": layer_of(record(7, record(1, bytes([4]))) + record(5, FLOATS[:-2])),
    "number without end": varint(100 << 3 | 2) + b"\xff" * 30,
    "group": layer_of(b"\x0b" * 5),
    "field 0": record(100, b"\x02\x00"),
    "empty layers": record(100, b"") * 20_000,
    "deep": nested(10_000, 100),
    "deep shapes": layer_of(nested(10_000, 7)),
    "no weights": record(1, b"net") + record(100, record(1, b"relu")),
    "two layers of one name": layer_of(record(7, record(1, bytes([4]))) + record(5, FLOATS)) * 2,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case, tmp_path, count_calls):
    """Refused in one line, with little work, and without room for what they claim to hold."""
    path = tmp_path / "a.caffemodel"
    path.write_bytes(HOSTILE[case])

    def read() -> None:
        with pytest.raises(backbone.WeightsError) as caught:
            read_file(path)
        messages.append(str(caught.value))

    messages: list[str] = []
    calls = count_calls(read)
    tracemalloc.start()
    try:
        read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all("\n" not in message and str(path) in message for message in messages)
    assert calls < 5000 + 20 * len(HOSTILE[case]) and peak < 10 << 20


@pytest.mark.parametrize("kept", [1, 5, 100, 0.5, 0.99])
def test_cut_off(kept, tmp_path):
    data = encode(resnet((1,), numbered=False, first_bias=False, widths=(4,)))
    path = tmp_path / "a.caffemodel"
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(backbone.WeightsError, match=r"not a whole \.caffemodel file|hold no weights"):
        read_file(path)
    # Without the suffix nothing tells that it was one.
    with pytest.raises(backbone.WeightsError, match="not a weights file of a known kind"):
        read_file(path.rename(tmp_path / "a.bin"))


def test_damaged_bytes_are_refused_or_read(tmp_path):
    data = encode(resnet((1,), numbered=False, first_bias=True, widths=(2,)))
    path, rng = tmp_path / "a.caffemodel", np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            open_weights(path)
        except backbone.WeightsError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_odd_blobs_of_a_batch_norm(tmp_path):
    """Whole as a file, nonsense as a network."""
    layers = resnet((1,), numbered=False, first_bias=False, widths=(4,))
    layers[1].blobs[2] = np.ones(0, np.float32)
    with pytest.raises(backbone.WeightsError, match="strange shapes for the caffe layout"):
        open_weights(write(tmp_path / "a.caffemodel", layers))


@pytest.mark.parametrize(("content", "said"), [(b'name: "ResNet-50"\nlayer {', "prototxt"), (b"<html>", "HTML")])
def test_something_else(content, said, tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(content)
    with pytest.raises(backbone.WeightsError, match=said):
        read_file(path)


def test_networks_are_unchanged_by_a_broken_file(tmp_path):
    network: nn.Module = backbone.create("resnet50", out_features=("stem",))
    before = network.conv1.weight.clone()
    (tmp_path / "a.caffemodel").write_bytes(HOSTILE["huge blob"])
    with pytest.raises(backbone.WeightsError):
        backbone.load_weights(network, tmp_path / "a.caffemodel")
    assert torch.equal(network.conv1.weight, before)

"""Names in .caffemodel files: the authors' ResNets (github.com/KaimingHe/deep-residual-networks) and VGG-16."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ...common.preprocessing import CAFFE_RESNET, CAFFE_VGG
from ..weight_metadata import WeightMetadata
from .base import EPS, Layout
from .caffe2 import BRANCHES, convolution_of

BRANCH = r"([2-5])([a-z])(\d*)_branch(1|2[abc])$"
VGG_FC = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}


class Caffe(Layout):
    """A convolution `res2a_branch2a` is followed by a BatchNorm `bn2a_branch2a` and a Scale `scale2a_branch2a`.

    Tensors are named "<layer>/<number of the blob>". The BatchNorm's third blob is the factor that its sums of means
    and variances are divided by; Caffe takes 0 for its inverse where it is 0 (batch_norm_layer.cpp).
    """

    name = "caffe"
    writable = False
    anchors = ("res2a_branch2a/0", "conv1_1/0")

    def recognises(self, names: Collection[str]) -> bool:
        return any(name in names for name in ("res2a_branch2a/0", "conv1_1/0"))

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        layers: dict[str, list[Tensor]] = {}
        for name, value in tensors.items():
            layers.setdefault(name.rsplit("/", 1)[0], []).append(value)
        if "conv1_1" in layers:
            return _vgg(layers)
        result: dict[str, Tensor] = {}
        norms: dict[str, dict[str, list[Tensor]]] = {}
        eps = {}
        for layer, blobs in layers.items():
            kind, module = _place(layer)
            if kind in ("bn", "scale"):
                norms.setdefault(module, {})[kind] = blobs
                eps[module] = float(facts.get(f"{layer}/eps", eps.get(module, EPS)))
            else:
                result |= _named(module, layer, blobs)
        for norm, blobs in norms.items():
            bias = result.pop(f"{convolution_of(norm)}.bias", None)
            result |= {f"{norm}.{name}": value for name, value in _norm(blobs, bias, eps[norm]).items()}
        return result

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        if "conv1_1/0" in tensors:
            return WeightMetadata(preprocessing=CAFFE_VGG, ceil_pool=True)
        stride_in_1x1 = None
        if "res3a_branch2c/0" in tensors:
            # The file tells the strides; the release has them in the 1x1.
            stride_in_1x1 = facts.get("res3a_branch2b/stride", "1") == "1"
        return WeightMetadata(preprocessing=CAFFE_RESNET, stride_in_1x1=stride_in_1x1, ceil_pool=True)


def _place(layer: str) -> tuple[str, str]:
    """Return the kind of a layer, and its module in our network; ("", the layer) for an unknown one."""
    fixed = {"conv1": "conv1", "fc1000": "fc"}
    if layer in fixed:
        return "conv", fixed[layer]
    if layer in ("bn_conv1", "scale_conv1"):
        return layer.split("_")[0], "bn1"
    match = re.match(r"(res|bn|scale)" + BRANCH, layer)
    if not match:
        return "", layer
    kind, stage, letter, number, branch = match.groups()
    # res3a, res3b, res3c; in the deeper networks res3a, res3b1, res3b2.
    index = int(number) if number else ord(letter) - ord("a")
    ours = f"layer{int(stage) - 1}.{index}."
    if kind == "res":
        return "conv", ours + ("downsample.0" if branch == "1" else f"conv{BRANCHES[branch]}")
    return kind, ours + ("downsample.1" if branch == "1" else f"bn{BRANCHES[branch]}")


def _named(module: str, layer: str, blobs: list[Tensor]) -> dict[str, Tensor]:
    """Name a layer's weight and bias; an unknown layer's blobs keep their names."""
    if module == layer and module != "conv1":
        return {f"{layer}/{index}": blob for index, blob in enumerate(blobs)}
    weight = blobs[0]
    # Old files have four dimensions for everything: (1, 1, outputs, inputs).
    tensors = {f"{module}.weight": weight.reshape(weight.shape[-2:]) if module in ("fc", *VGG_FC.values()) else weight}
    return tensors | {f"{module}.bias": blob.flatten() for blob in blobs[1:2]}


def _norm(blobs: Mapping[str, list[Tensor]], convolution_bias: Tensor | None, eps: float) -> dict[str, Tensor]:
    """Join a BatchNorm and a Scale, either of which may be missing, to the four tensors of a BN."""
    size = next(iter(blobs.values()))[0].numel()
    mean, variance = torch.zeros(size, dtype=torch.float64), torch.full((size,), 1 - EPS, dtype=torch.float64)
    if len(blobs.get("bn", [])) == 3:
        total_mean, total_variance, factor = (blob.flatten().double() for blob in blobs["bn"])
        scale = 0.0 if factor[0] == 0 else 1 / factor[0]
        mean, variance = total_mean * scale, total_variance * scale + eps - EPS
    if convolution_bias is not None:
        mean = mean - convolution_bias.double()
    affine = [blob.flatten() for blob in blobs.get("scale", [])]
    weight, bias = (affine + [torch.ones(size), torch.zeros(size)][len(affine) :])[:2]
    return {"weight": weight, "bias": bias, "running_mean": mean.float(), "running_var": variance.float()}


def _vgg(layers: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Name VGG's layers: each convolution is followed by a ReLU, each stage by pooling."""
    places, index, stage = {}, 0, 1
    for layer in sorted(name for name in layers if re.fullmatch(r"conv\d_\d", name)):
        index += int(layer[4]) - stage
        stage = int(layer[4])
        places[layer] = f"features.{index}"
        index += 2
    places |= VGG_FC
    result: dict[str, Tensor] = {}
    for layer, blobs in layers.items():
        result |= _named(places.get(layer, layer), layer, blobs)
    return result

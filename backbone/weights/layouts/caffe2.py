"""Names of Detectron's Caffe2 models, MSRA's ResNets among them (detectron2's ImageNetPretrained/MSRA/R-50.pkl)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ...common.preprocessing import CAFFE2_RESNEXT, MSRA
from ..weight_metadata import WeightMetadata
from .base import EPS, Layout, Rule, block, renamed

# Branch 1 is the shortcut, branches 2a, 2b and 2c are convolutions 1, 2 and 3.
BRANCHES = {"2a": "1", "2b": "2", "2c": "3"}
NORM_PARTS = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
PARTS = {"w": "weight", "b": "bias"}


def _module(match: re.Match, convolution: str, shortcut: str) -> str:
    branch = match[3]
    return block(match, -1) + (shortcut if branch == "1" else convolution + BRANCHES[branch])


RULES: list[Rule] = [
    (
        r"res(\d)_(\d+)_branch(1|2[abc])_[bg]n_(s|b|rm|riv)$",
        lambda m: f"{_module(m, 'bn', 'downsample.1')}.{NORM_PARTS[m[4]]}",
    ),
    (
        r"res(\d)_(\d+)_branch(1|2[abc])_(w|b)$",
        lambda m: f"{_module(m, 'conv', 'downsample.0')}.{PARTS[m[4]]}",
    ),
    (r"(?:res_)?conv1_[bg]n_(s|b|rm|riv)$", lambda m: f"bn1.{NORM_PARTS[m[1]]}"),
    (r"conv1_(w|b)$", lambda m: f"conv1.{PARTS[m[1]]}"),
    (r"(?:pred|fc1000)_(w|b)$", lambda m: f"fc.{PARTS[m[1]]}"),
]


class Caffe2(Layout):
    """BN is an affine layer: its statistics are absorbed into scale and bias."""

    name = "caffe2"
    writable = False
    anchors = ("res2_0_branch2a_w",)

    def recognises(self, names: Collection[str]) -> bool:
        return "conv1_w" in names and "res2_0_branch2a_w" in names

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        ours = renamed(tensors, RULES)
        return ours if _group_norm(tensors) else with_statistics(ours)

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        # detectron2/config/defaults.py: the stride is in the 1x1 of "the original MSRA ResNet" alone, "use False for
        # C2 and Torch models"; those of Caffe2 that it has configurations for are ResNeXt and GroupNorm.
        if _group_norm(tensors):
            return WeightMetadata(preprocessing=MSRA, stride_in_1x1=False)
        inner, middle = tensors.get("res2_0_branch2a_w"), tensors.get("res2_0_branch2b_w")
        if middle is not None and middle.ndim == 4 and middle.shape[1] != inner.shape[0]:
            return WeightMetadata(preprocessing=CAFFE2_RESNEXT, stride_in_1x1=False)
        return WeightMetadata(preprocessing=MSRA, stride_in_1x1="res2_0_branch2c_w" in tensors or None)


def _group_norm(names: Collection[str]) -> bool:
    return any(name.endswith("_gn_s") for name in names)


def with_statistics(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every affine layer without statistics those that change nothing, and fold convolutions' biases into them.

    The variance is 1 - eps: BN then multiplies with exactly its weight.
    """
    result = dict(ours)
    for name, weight in ours.items():
        norm = name.removesuffix(".weight")
        if norm == name or not re.search(r"(^|\.)(bn\d|downsample\.1)$", norm):
            continue
        result.setdefault(f"{norm}.running_mean", torch.zeros_like(weight))
        result.setdefault(f"{norm}.running_var", torch.full_like(weight, 1 - EPS))
        bias = result.pop(f"{convolution_of(norm)}.bias", None)
        if bias is not None:
            result[f"{norm}.running_mean"] = result[f"{norm}.running_mean"] - bias
    return result


def convolution_of(norm: str) -> str:
    """Return the name of the convolution before a norm: bn2 -> conv2, downsample.1 -> downsample.0."""
    return re.sub(r"bn(\d)$", r"conv\1", re.sub(r"downsample\.1$", "downsample.0", norm))

"""Weights of three-channel images in networks for images of other channels, by timm's rule."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..networks.contract import Backbone, first_convolution
from ..networks.plain import path_inside
from .content import WeightsFile

BASE = 3


def adapted(kernel: Tensor, channels: int) -> Tensor:
    """Return a first convolution's (O, 3, H, W) weights for `channels` channels.

    One channel gets the sum over the three; more get them in turn, times 3 / channels (as timm's adapt_input_conv).
    """
    if channels == 1:
        return kernel.float().sum(1, keepdim=True).to(kernel.dtype)
    repeated = kernel.float().repeat(1, -(-channels // BASE), 1, 1)[:, :channels]
    return (repeated * (BASE / channels)).to(kernel.dtype)


def fit_channels(network: nn.Module, weights: WeightsFile) -> tuple[WeightsFile, list[str]]:
    """Return the weights for the network's number of channels, their preprocessing likewise, and what was done."""
    if not isinstance(network, Backbone):
        return weights, []
    name, channels = path_inside(network, first_convolution(network)[0]) + "weight", network.in_chans
    kernel = weights.tensors.get(name)
    if not isinstance(kernel, torch.Tensor) or kernel.ndim != 4 or kernel.shape[1] != BASE or channels == BASE:
        return weights, []
    preprocessing = weights.traits.preprocessing
    order = f" ({preprocessing.channel_order})" if preprocessing else ""
    how = "summed" if channels == 1 else f"repeated in their order{order}, times {BASE}/{channels}"
    note = f"{name} adapted from {BASE} channels to {channels}: {how}"
    if preprocessing is not None:
        preprocessing = preprocessing.for_channels(channels)
        note += "; mean and std likewise, " + ("averaged" if channels == 1 else "repeated")
    traits = replace(weights.traits, preprocessing=preprocessing)
    return replace(weights, tensors={**weights.tensors, name: adapted(kernel, channels)}, traits=traits), [note]

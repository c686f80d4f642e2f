"""Weights of three-channel images in networks for images of other channels, by timm's rule."""

from __future__ import annotations

from dataclasses import replace

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
    tensors, notes = adapt_channels(network, weights.tensors)
    preprocessing = weights.weight_metadata.preprocessing
    if notes and preprocessing is not None:
        notes.append(
            f"mean and std of {preprocessing.channel_order} images "
            + ("averaged" if network.in_chans == 1 else "repeated in that order")
        )
        preprocessing = preprocessing.for_channels(network.in_chans)
    return replace(
        weights, tensors=tensors, weight_metadata=replace(weights.weight_metadata, preprocessing=preprocessing)
    ), notes


def adapt_channels(network: nn.Module, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors whose first convolution takes the network's number of channels, and what was done."""
    if not isinstance(network, Backbone):
        return tensors, []
    name, channels = path_inside(network, first_convolution(network)[0]) + "weight", network.in_chans
    kernel = tensors.get(name)
    if not isinstance(kernel, Tensor) or kernel.ndim != 4 or kernel.shape[1] != BASE or channels == BASE:
        return tensors, []
    how = "summed" if channels == 1 else f"repeated, times {BASE}/{channels}"
    note = f"{name} adapted from {BASE} channels to {channels}: {how}"
    return {**tensors, name: adapted(kernel, channels)}, [note]

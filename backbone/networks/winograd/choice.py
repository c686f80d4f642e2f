"""Which 3x3 convolutions gain by Winograd's form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import compiled
from .form import TAPS, TILE, tiles_along

# By torch's operators, fewer channels leave too little to save: at 64 they take as long as the direct form.
LEAST_CHANNELS = 128
# Fewer tiles do not pay for reading the transformed weights, or, in training, for transforming them.
LEAST_TILES, LEAST_TILES_IN_TRAINING = 32, 64
LEAST_USE = 0.6  # share of the tiles' area that the output must fill


def suits(conv: nn.Conv2d) -> bool:
    """Whether the form computes this convolution, and there are enough channels to save something."""
    geometry = conv.kernel_size == (TAPS, TAPS) and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    channels = conv.in_channels, conv.out_channels
    return geometry and (min(channels) >= LEAST_CHANNELS or compiled.divides(*channels))


def fits_training(conv: nn.Conv2d) -> bool:
    """Whether the form trains this convolution."""
    return suits(conv) and conv.padding_mode == "zeros" and type(conv.padding) is tuple and max(conv.padding) < TAPS


def is_worthwhile(x: Tensor, conv: nn.Conv2d, *, training: bool = False) -> bool:
    """Whether the form computes this convolution of (N, C, H, W) on a CPU, and in less time than torch."""
    return suits(conv) and gains(x, conv, training=training) and is_ready(conv)


def gains(x: Tensor, conv: nn.Conv2d, *, training: bool) -> bool:
    """Whether images (N, C, H, W) fit a convolution that the form `suits`, and are large enough."""
    weight, bias = conv.weight, conv.bias
    if not (x.dtype is weight.dtype is torch.float32 and x.shape[1] == weight.shape[1]):
        return False  # torch's operator says what is wrong
    if bias is not None and not (bias.dtype is torch.float32 and bias.shape == weight.shape[:1]):
        return False
    height, width = (size + 2 * pad - 2 for size, pad in zip(x.shape[2:], conv.padding))
    tiles = len(x) * tiles_along(height) * tiles_along(width)
    least = LEAST_TILES_IN_TRAINING if training else LEAST_TILES
    return tiles >= least and len(x) * height * width >= LEAST_USE * tiles * TILE**2


def is_ready(conv: nn.Conv2d) -> bool:
    """Whether a way to compute it gains with so many channels; the first call may compile for seconds."""
    return min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS or compiled.is_available()

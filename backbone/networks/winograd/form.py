"""Winograd's F(4x4, 3x3): its matrices, and which convolutions gain by it.

See Lavin and Gray (arXiv 1509.09308): 36 products of matrices make 4 x 4 values of the output where the definition
takes 144. The points 0, 1, -1, 1/2, -2 and infinity keep the rounding at about twice that of a direct convolution in
float32 (1.5e-5 and 7e-6 at most, outputs up to 6).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from . import compiled

TILE, TAPS = 4, 3
WINDOW = TILE + TAPS - 1  # pixels along a tile's side that its output depends on
PLACES = WINDOW * WINDOW
# A tile's pixels, the weights, and the sums are transformed along both axes by these.
PIXELS = (
    (1 / 2, -3 / 4, -1, 3 / 4, 1 / 2, 0),
    (0, -1 / 2, 1 / 4, 5 / 4, 1 / 2, 0),
    (0, 1 / 2, -5 / 4, 1 / 4, 1 / 2, 0),
    (0, -1, -1 / 2, 1, 1 / 2, 0),
    (0, 1 / 2, -1, -1 / 2, 1, 0),
    (0, 1 / 2, -3 / 4, -1, 3 / 4, 1 / 2),
)
WEIGHTS = (
    (2, 0, 0),
    (2 / 3, 2 / 3, 2 / 3),
    (-2 / 3, 2 / 3, -2 / 3),
    (-32 / 15, -16 / 15, -8 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 2),
)
SUMS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 1 / 2, -2, 0), (0, 1, 1, 1 / 4, 4, 0), (0, 1, -1, 1 / 8, -8, 1))
# By torch's operators, fewer channels leave too little to save: at 64 they take as long as the direct form.
LEAST_CHANNELS = 128
# Fewer tiles do not pay for reading the transformed weights, or, in training, for transforming them.
LEAST_TILES, LEAST_TILES_IN_TRAINING = 32, 64
LEAST_USE = 0.6  # share of the tiles' area that the output must fill


@cache
def both_axes(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    rows = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(rows, rows).to(torch.float32)


def tiles_along(length: int) -> int:
    return -(-length // TILE)


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

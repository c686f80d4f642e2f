"""3x3 convolutions on CPUs with a quarter of the multiplications: their values, in inference and training.

Winograd's F(4x4, 3x3), see Lavin and Gray (arXiv 1509.09308), from torch's own matrix products: 36 products of matrices
make 4 x 4 values of the output where the definition takes 144. The points 0, 1, -1, 1/2, -2 and infinity keep
the rounding at about twice that of a direct convolution in float32 (1.5e-5 and 7e-6 at most, outputs up to 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

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
# The place among the sums that counts once in every value of the output: that of the point 1 along both axes.
EVERYWHERE = WINDOW + 1
# Bytes of a thread's part of the work, so that it stays in the caches.
PART = 16 * 2**20
# Fewer channels or tiles leave too little to save: at 64 channels it takes as long as the direct form.
LEAST_CHANNELS, LEAST_TILES = 128, 32
LEAST_USE = 0.6  # share of the tiles' area that the output must fill


@cache
def both_axes(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    rows = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(rows, rows).to(torch.float32)


def suits(conv: torch.nn.Conv2d) -> bool:
    """Whether `winograd` computes this convolution, and there are enough channels to save something."""
    geometry = conv.kernel_size == (TAPS, TAPS) and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    return geometry and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS


def is_worthwhile(x: Tensor, conv: torch.nn.Conv2d, least_tiles: int = LEAST_TILES) -> bool:
    """Whether `winograd` computes this convolution of (N, C, H, W), and in less time."""
    if x.dtype is not torch.float32 or not suits(conv):
        return False
    height, width = (size + 2 * pad - 2 for size, pad in zip(x.shape[2:], conv.padding))
    tiles = len(x) * _tiles(height) * _tiles(width)
    return tiles >= least_tiles and len(x) * height * width >= LEAST_USE * tiles * TILE**2


def transform_weight(weight: Tensor) -> Tensor:
    """Return the weights (K, C, 3, 3) as (36, C, K), which `winograd` takes."""
    rows = torch.tensor(WEIGHTS, dtype=torch.float64)
    places = torch.einsum("ia,jb,kcab->ijck", rows, rows, weight.detach().double())
    return places.reshape(PLACES, weight.shape[1], weight.shape[0]).to(weight.dtype)


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], *, relu: bool) -> Tensor:
    """Return the convolution of (N, C, H, W) at stride 1 plus the bias, then the ReLU; channels last in memory.

    Args:
        weight: of `transform_weight`.
    """
    (images, _, height, width), (top, left) = x.shape, padding
    out = x.new_empty((images, height + 2 * top - 2, width + 2 * left - 2, weight.shape[2]))
    write(x.permute(0, 2, 3, 1), weight, bias, padding, out, relu=relu)
    return out.permute(0, 3, 1, 2)


def write(
    pixels: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], out: Tensor, *, relu: bool = False
) -> None:
    """Write the convolution of (N, H, W, C) at stride 1 plus the bias, then the ReLU, into (N, H', W', K).

    Args:
        weight: of `transform_weight`.
        out: of any order in memory in which the kernels lie side by side.
    """
    channels, kernels = weight.shape[1:]
    parts = Parts(out.shape, channels, kernels)
    padded, space = parts.padded(pixels), parts.space(pixels)
    for part, count, row, rows in parts:
        fill(padded[:count], pixels[part], row - padding[0], padding[1])
        sums = _sums(padded[:count], weight, bias, space, rows, parts.across)
        _place(sums, out[part], row, relu)


class Parts:
    """The tiles of an output (N, H, W, K) in parts that fit the caches: rows of tiles of one image, or whole images.

    Each is a slice of the images, how many these are, the first of the output's rows, and how many rows of tiles.

    Args:
        channels: of the input; kernels: of the output.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, kernels: int) -> None:
        self.images, height, width = shape[:3]
        self.channels, self.kernels = channels, kernels
        self.down, self.across = _tiles(height), _tiles(width)
        budget = PART * max(1, torch.get_num_threads() // 2) // (4 * PLACES * self.across * (channels + kernels))
        self.rows = _even(self.down, budget)
        self.together = _even(self.images, budget // self.down) if self.rows == self.down else 1

    def __iter__(self) -> Iterator[tuple[slice, int, int, int]]:
        for first in range(0, self.images, self.together):
            part = slice(first, min(first + self.together, self.images))
            for row in range(0, self.down, self.rows):
                yield part, part.stop - first, TILE * row, min(self.rows, self.down - row)

    def padded(self, like: Tensor) -> Tensor:
        """Return zeros for the pixels that a part's output depends on, (images, H, W, C)."""
        size = TILE * self.rows + TAPS - 1, TILE * self.across + TAPS - 1
        return like.new_zeros((self.together, *size, self.channels))

    def space(self, like: Tensor) -> Tensor:
        """Return three buffers for a part's transformed tiles of input or output."""
        tiles = self.together * self.rows * self.across
        return like.new_empty((3, PLACES * tiles * max(self.channels, self.kernels)))


def _tiles(length: int) -> int:
    return -(-length // TILE)


def _even(total: int, at_most: int) -> int:
    """Return the length of equal parts of `total`, none longer than `at_most` where that is positive."""
    parts = -(-total // max(1, at_most))
    return -(-total // parts)


def fill(padded: Tensor, pixels: Tensor, first: int, left: int) -> None:
    """Write rows of the pixels from row `first` on into the padded part, zeros where there are none."""
    height, width = pixels.shape[1:3]
    begin, end = max(0, first), min(height, first + padded.shape[1])
    if end - begin < padded.shape[1]:
        padded.zero_()
    padded[:, begin - first : end - first, left : left + width] = pixels[:, begin:end]


def _sums(padded: Tensor, weight: Tensor, bias: Tensor | None, space: Tensor, rows: int, across: int) -> Tensor:
    """Return the part's output as (4, 4, images, rows of tiles, tiles across, K)."""
    images, kernels = len(padded), weight.shape[2]
    tiles = images * rows * across
    one, other, third = space
    products = third[: PLACES * tiles * kernels].view(PLACES, tiles, kernels)
    torch.bmm(transform_pixels(padded, one, other, rows, across), weight, out=products)
    if bias is not None:
        products[EVERYWHERE] += bias
    result = one[: TILE * TILE * tiles * kernels].view(TILE * TILE, -1)
    torch.mm(both_axes(SUMS), products.view(PLACES, -1), out=result)
    return result.view(TILE, TILE, images, rows, across, kernels)


def transform_pixels(padded: Tensor, space: Tensor, target: Tensor, rows: int, across: int) -> Tensor:
    """Return the tiles' pixels of a part, transformed, as (36, tiles, C); they lie in `target`."""
    images, channels = len(padded), padded.shape[3]
    whole, row, pixel = padded.stride()[:3]
    shape = (WINDOW, WINDOW, images, rows, across, channels)
    windows = padded.as_strided(shape, (row, pixel, whole, TILE * row, TILE * pixel, 1))
    given = space[: windows.numel()].view(shape).copy_(windows).view(PLACES, -1)
    seen = torch.mm(both_axes(PIXELS), given, out=target[: given.numel()].view(PLACES, -1))
    return seen.view(PLACES, -1, channels)


def _place(sums: Tensor, out: Tensor, first: int, relu: bool) -> None:
    """Write the tiles into rows of the output (images, H, W, K) from row `first` on; those at its end in part."""
    images, kernels = len(out), out.shape[3]
    whole, row, pixel, _ = out.stride()
    sums = sums.permute(2, 3, 0, 4, 1, 5)  # images, rows of tiles, 4, tiles across, 4, K
    for down, high, start in _pieces(min(TILE * sums.shape[1], out.shape[1] - first)):
        for across, wide, left in _pieces(out.shape[2]):
            shape = (images, down, high, across, wide, kernels)
            offset = out.storage_offset() + (first + TILE * start) * row + TILE * left * pixel
            target = out.as_strided(shape, (whole, TILE * row, row, TILE * pixel, pixel, 1), offset)
            source = sums[:, start : start + down, :high, left : left + across, :wide]
            if relu:
                torch.clamp_min(source, 0, out=target)
            else:
                target.copy_(source)


def _pieces(length: int) -> list[tuple[int, int, int]]:
    """Return tiles along a side: how many, how long, and the first of them; the whole ones, then the cut one."""
    whole, rest = divmod(length, TILE)
    return [piece for piece in ((whole, TILE, 0), (1, rest, whole)) if piece[0] and piece[1]]

"""Winograd's form by torch's own operators: `form`'s products of matrices, in parts that fit the caches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .form import PIXELS, PLACES, SUMS, TAPS, TILE, WEIGHTS, WINDOW, both_axes, tiles_along

# The place among the sums that counts once in every value of the output: that of the point 1 along both axes.
EVERYWHERE = WINDOW + 1
# Bytes of a thread's part of the work, so that it stays in the caches.
PART = 16 * 2**20


def transform_weight(weight: Tensor) -> Tensor:
    """Return the weights (K, C, 3, 3) as (36, C, K), in float32."""
    rows = weight.detach().transpose(0, 1).reshape(-1, TAPS * TAPS)
    return torch.mm(both_axes(WEIGHTS), rows.t()).view(PLACES, weight.shape[1], weight.shape[0])


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


def by_pixels(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N, H, W, C) of which the channels lie side by side in memory."""
    images, channels, height, width = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1)
    # This copy of a matrix is torch's fast one.
    rows = x.contiguous().view(images * channels, -1).t().contiguous()
    return rows.view(height, width, images, channels).permute(2, 0, 1, 3)


def by_channels(pixels: Tensor) -> Tensor:
    """Return pixels of `new_pixels` as (N, C, H, W) in that order in memory."""
    images, height, width, channels = pixels.shape
    found = pixels.new_empty((images, channels, height, width))
    # This copy of a matrix is torch's fast one.
    found.view(images * channels, -1).copy_(pixels.permute(1, 2, 0, 3).reshape(height * width, -1).t())
    return found


def new_pixels(like: Tensor, images: int, height: int, width: int, channels: int) -> Tensor:
    """Return (N, H, W, C) for `write`, in the order in memory that `by_channels` reads fast."""
    return like.new_empty((height, width, images, channels)).permute(2, 0, 1, 3)


class Parts:
    """The tiles of an output (N, H, W, K) in parts that fit the caches: rows of tiles of one image, or whole images.

    Each is a slice of the images, how many these are, the first of the output's rows, and how many rows of tiles.

    Args:
        channels: of the input; kernels: of the output.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, kernels: int) -> None:
        self.images, height, width = shape[:3]
        self.channels, self.kernels = channels, kernels
        self.down, self.across = tiles_along(height), tiles_along(width)
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


def _even(total: int, at_most: int) -> int:
    """Return the length of equal parts of `total`, none longer than `at_most` where that is positive."""
    parts = -(-total // max(1, at_most))
    return -(-total // parts)


def weight_gradient(pixels: Tensor, values: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return the gradient of the weights (K, C, 3, 3) from pixels (N, H, W, C) and output gradients (N, H', W', K)."""
    sums = _weight_sums(pixels, values, padding)
    rows = torch.mm(both_axes(WEIGHTS).t(), sums.view(PLACES, -1))
    return rows.t().reshape(pixels.shape[3], values.shape[3], TAPS, TAPS).transpose(0, 1)


def _weight_sums(pixels: Tensor, values: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return the gradients of the transformed weights (36, C, K) from pixels and gradients, (N, H, W, C or K)."""
    channels, kernels = pixels.shape[3], values.shape[3]
    parts = Parts(values.shape, channels, kernels)
    padded, (one, other, third) = parts.padded(pixels), parts.space(pixels)
    filled = pixels.new_zeros((parts.together, TILE * parts.rows, TILE * parts.across, kernels))
    found = pixels.new_zeros((PLACES, channels, kernels))
    for part, count, row, rows in parts:
        fill(padded[:count], pixels[part], row - padding[0], padding[1])
        fill(filled[:count], values[part], row, 0)
        tiles = filled[:count].view(count, parts.rows, TILE, parts.across, TILE, kernels)[:, :rows]
        tiles = tiles.permute(2, 4, 0, 1, 3, 5)
        given = third[: tiles.numel()].view(tiles.shape).copy_(tiles).view(TILE * TILE, -1)
        given = torch.mm(both_axes(SUMS).t(), given, out=one[: PLACES * given.shape[1]].view(PLACES, -1))
        seen = transform_pixels(padded[:count], third, other, rows, parts.across)
        found.baddbmm_(seen.transpose(1, 2), given.view(PLACES, -1, kernels))
    return found


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

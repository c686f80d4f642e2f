"""3x3 convolutions of training on CPUs with a quarter of the multiplications, forward and backward: `use_winograd`.

The output is `winograd`'s. The input's gradient is the convolution of the output's gradient by the turned weights, so
it is too. The weights' gradient is that of the same sums: with X = B x B', W = G w G' and y = A' (W * X) A, it is
G' ((A g A') X) G, summed over the tiles, for a gradient g of y. All in float32, equal to torch's to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import winograd
from .winograd import (
    PLACES,
    SUMS,
    TAPS,
    TILE,
    WEIGHTS,
    Parts,
    both_axes,
    fill,
    is_worthwhile,
    suits,
    transform_pixels,
)

# Fewer tiles do not pay for the transformed weights.
LEAST_TILES = 64


def fits(conv: nn.Conv2d) -> bool:
    """Whether `convolve` computes this convolution."""
    return suits(conv) and conv.padding_mode == "zeros" and type(conv.padding) is tuple and max(conv.padding) < TAPS


def pays(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether `convolve` takes less time than torch for these images (N, C, H, W) and a convolution that `fits`."""
    return x.device.type == "cpu" and conv.weight.dtype is torch.float32 and is_worthwhile(x, conv, LEAST_TILES)


class Convolution(torch.autograd.Function):
    """The convolution of (N, C, H, W) by (K, C, 3, 3) at stride 1, plus a bias or None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return convolve(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_x, grad_weight = gradients(grad, x, weight, ctx.padding, wanted[:2])
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if wanted[2] else None, None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Return the convolution of x (N, C, H, W) by weight (K, C, 3, 3) at stride 1, plus the bias; in x's layout."""
    return _convolve(_by_pixels(x), _places(weight.transpose(0, 1)), bias, padding, like=x)


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of x and weight for the output's (N, K, H', W'); None for one that is not `wanted`."""
    if torch.is_grad_enabled():
        # Gradients of gradients: torch's own operator has them.
        geometry = [1, 1], list(padding), [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [*wanted, False])[:2]
    values = _by_pixels(grad)
    grad_x = grad_weight = None
    if wanted[0]:
        around = TAPS - 1 - padding[0], TAPS - 1 - padding[1]
        grad_x = _convolve(values, _places(weight.flip(2, 3)), None, around, like=x)
    if wanted[1]:
        sums = _weight_sums(_by_pixels(x), values, padding)
        rows = torch.mm(both_axes(WEIGHTS).t(), sums.view(PLACES, -1))
        grad_weight = rows.t().reshape(weight.shape[1], weight.shape[0], TAPS, TAPS).transpose(0, 1).contiguous()
    return grad_x, grad_weight


def _convolve(pixels: Tensor, places: Tensor, bias: Tensor | None, padding: tuple[int, int], *, like: Tensor) -> Tensor:
    images, height, width, _ = pixels.shape
    height, width, kernels = height + 2 * padding[0] - 2, width + 2 * padding[1] - 2, places.shape[2]
    last = like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    # Not a view of anything: what follows may write over it.
    found = torch.empty((images, kernels, height, width), dtype=pixels.dtype, memory_format=layout)
    if last:
        winograd.write(pixels, places, bias, padding, found.permute(0, 2, 3, 1))
        return found
    out = pixels.new_empty((height, width, images, kernels))
    winograd.write(pixels, places, bias, padding, out.permute(2, 0, 1, 3))
    # This copy of a matrix is torch's fast one.
    found.view(images * kernels, -1).copy_(out.view(height * width, -1).t())
    return found


def _by_pixels(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N, H, W, C) of which the channels lie side by side in memory."""
    images, channels, height, width = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1)
    # This copy of a matrix is torch's fast one.
    rows = x.contiguous().view(images * channels, -1).t().contiguous()
    return rows.view(height, width, images, channels).permute(2, 0, 1, 3)


def _places(weight: Tensor) -> Tensor:
    """Return weights (C, K, 3, 3) as (36, C, K): those of `winograd.transform_weight`, in float32."""
    rows = weight.reshape(-1, TAPS * TAPS)
    return torch.mm(both_axes(WEIGHTS), rows.t()).view(PLACES, *weight.shape[:2])


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

"""Winograd's form in training, forward and backward: `Convolution`, and `convolution_in_graph` for torch.compile.

The output is the form's. The input's gradient is the convolution of the output's gradient by the turned weights, so
it is too. The weights' gradient is that of the same sums: with X = B x B', W = G w G' and y = A' (W * X) A, it is
G' ((A g A') X) G, summed over the tiles, for a gradient g of y. All in float32, equal to torch's to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .convolution import implementation
from .form import TAPS


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
    return _convolve(_by_pixels(x, weight), weight, bias, padding, like=x)


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of x and weight for the output's (N, K, H', W'); None for one that is not `wanted`."""
    if torch.is_grad_enabled():
        # Gradients of gradients: torch's own operator has them.
        geometry = [1, 1], list(padding), [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [*wanted, False])[:2]
    if not any(wanted):
        return None, None
    values = _by_pixels(grad, weight)
    grad_x = _input_gradient(values, weight, padding, like=x) if wanted[0] else None
    return grad_x, _weight_gradient(_by_pixels(x, weight), values, padding) if wanted[1] else None


def _input_gradient(values: Tensor, weight: Tensor, padding: tuple[int, int], *, like: Tensor) -> Tensor:
    around = TAPS - 1 - padding[0], TAPS - 1 - padding[1]
    return _convolve(values, weight.flip(2, 3).transpose(0, 1), None, around, like=like)


def _weight_gradient(pixels: Tensor, values: Tensor, padding: tuple[int, int]) -> Tensor:
    if not values.numel():
        return pixels.new_zeros((values.shape[3], pixels.shape[3], TAPS, TAPS))
    return implementation(pixels.shape[3], values.shape[3]).weight_gradient(pixels, values, padding).contiguous()


def _convolve(pixels: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], *, like: Tensor) -> Tensor:
    images, height, width, channels = pixels.shape
    kernels = len(weight)
    used = implementation(channels, kernels)
    places = used.transform_weight(weight)
    shape = images, height + 2 * padding[0] - 2, width + 2 * padding[1] - 2, kernels
    if like.is_contiguous(memory_format=torch.channels_last):
        # Not a view of anything: what follows may write over it.
        found = torch.empty((images, kernels, *shape[1:3]), dtype=like.dtype, memory_format=torch.channels_last)
        used.write(pixels, places, bias, padding, found.permute(0, 2, 3, 1))
        return found
    out = used.new_pixels(pixels, *shape)
    used.write(pixels, places, bias, padding, out)
    return used.by_channels(out)


def _by_pixels(x: Tensor, weight: Tensor) -> Tensor:
    return implementation(*weight.shape[:2]).by_pixels(x)


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


# In a graph of torch.compile the three passes are operators of their own, which the compiler leaves as they are. What
# they return lies as what they are given.


@torch.library.custom_op("resnet_detection::winograd", mutates_args=(), device_types="cpu")
def _graph_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, top: int, left: int) -> Tensor:
    return convolve(x, weight, bias, (top, left))


@torch.library.custom_op("resnet_detection::winograd_input_gradient", mutates_args=(), device_types="cpu")
def _graph_input_gradient(grad: Tensor, weight: Tensor, x: Tensor, top: int, left: int) -> Tensor:
    return _input_gradient(_by_pixels(grad, weight), weight, (top, left), like=x)


@torch.library.custom_op("resnet_detection::winograd_weight_gradient", mutates_args=(), device_types="cpu")
def _graph_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, top: int, left: int) -> Tensor:
    taps = _weight_gradient(_by_pixels(x, weight), _by_pixels(grad, weight), (top, left))
    return torch.empty_like(weight, memory_format=_layout(weight)).copy_(taps)


@_graph_convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, top: int, left: int) -> Tensor:
    shape = (x.shape[0], weight.shape[0], x.shape[2] + 2 * top - 2, x.shape[3] + 2 * left - 2)
    return x.new_empty(shape).contiguous(memory_format=_layout(x))


@_graph_input_gradient.register_fake
def _(grad: Tensor, weight: Tensor, x: Tensor, top: int, left: int) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x))


@_graph_weight_gradient.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, top: int, left: int) -> Tensor:
    return torch.empty_like(weight, memory_format=_layout(weight))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *ctx.padding = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        _graph_input_gradient(grad, weight, x, *ctx.padding) if wanted[0] else None,
        _graph_weight_gradient(grad, x, weight, *ctx.padding) if wanted[1] else None,
        grad.sum((0, 2, 3)) if wanted[2] else None,
        None,
        None,
    )


_graph_convolve.register_autograd(_backward, setup_context=_keep)


def convolution_in_graph(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """As `Convolution`, as an operator in a graph of torch.compile."""
    return _graph_convolve(x, weight, bias, *padding)

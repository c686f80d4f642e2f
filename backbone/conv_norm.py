"""Convolution and normalisation as one step; with frozen BN, as one convolution.

A frozen BN after a convolution is a constant linear map, so conv(x, w) * scale + shift = conv(x, w * scale) + shift.
That leaves out a pass over the activations forward and another backward. Autograd would keep the scaled weights for the
backward pass, a second copy of the network; `_ScaledConv` keeps the weights themselves, which exist anyway, and scales
them again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .norm import FrozenBatchNorm2d


class _ScaledConv(torch.autograd.Function):
    """conv2d(x, weight * scale, shift) for constant `scale` and `shift`; gradients for `x` and `weight`."""

    @staticmethod
    def forward(ctx, x, weight, scale, shift, geometry):
        ctx.save_for_backward(x, weight, scale)
        ctx.geometry = geometry
        return F.conv2d(x, _scaled(weight, scale, x.dtype), shift.to(x.dtype), *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            *(grad, x, _scaled(weight, scale, x.dtype), None),
            *(stride, padding, dilation, False, [0, 0], groups, wanted),
        )
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype) * scale.view(-1, 1, 1, 1)
        return grad_x, grad_weight, None, None, None


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight * scale.view(-1, 1, 1, 1)).to(dtype)


def _is_plain_eager() -> bool:
    """Whether this runs eagerly; a compiler or an exporter gets the plain form, which it can look into."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting())


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Return norm(conv(x)), as one convolution when `norm` is a FrozenBatchNorm2d.

    Args:
        conv: has no bias when `norm` is frozen, as in every network with BN after the convolution, or one that is
            frozen with it (ResNet-50 of the paper's authors has one in conv1).
        x: (N, C, H, W).
    """
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    scale, shift = norm.scale_and_shift()
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    trains = torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)
    if not trains or shift.requires_grad or not _is_plain_eager():
        return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), shift, *geometry)
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    return _ScaledConv.apply(x, conv.weight, scale, shift, geometry)

"""Convolution, normalisation, addition and ReLU as one step; a convolution and its frozen BN as one convolution.

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


def runs_eagerly() -> bool:
    """Whether this runs as it stands; a compiler or an exporter gets plain operators, which it can look into."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting())


class FoldedConv(nn.Conv2d):
    """A convolution for inference that has taken its norm into weights and bias; see `backbone.fold`."""

    def run(self, x: Tensor, add: Tensor | None, relu: bool) -> Tensor:
        """Return the convolution of `x`, plus `add` (which may be overwritten), then ReLU."""
        if self._fuses(x, add):
            geometry = (self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)
            after = "relu" if relu else "none"
            if add is None:
                return torch.ops.mkldnn._convolution_pointwise(x, *geometry, after, [], "")
            unary = "relu" if relu else None
            return torch.ops.mkldnn._convolution_pointwise_.binary(add, x, *geometry, "add", 1.0, unary, [], "")
        out = self(x)
        if add is not None:
            out = out + add
        return F.relu(out) if relu else out

    def _fuses(self, x: Tensor, add: Tensor | None) -> bool:
        """Whether oneDNN can do the addition and the ReLU while it writes the convolution's result."""
        return (
            FUSED_OPERATORS
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.bfloat16)
            and x.dtype == self.weight.dtype
            and (add is None or add.is_contiguous(memory_format=torch.channels_last))
            and not torch.is_grad_enabled()
            and runs_eagerly()
        )


# The operators that torch's own compiler fuses convolutions with on a CPU.
FUSED_OPERATORS = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor, *, add: Tensor | None = None, relu: bool = False) -> Tensor:
    """Return norm(conv(x)), plus `add`, then ReLU.

    Args:
        norm: a FrozenBatchNorm2d becomes one convolution with `conv`.
        x: (N, C, H, W).
        add: of the shape of the result; a folded network may write the result over it.
    """
    if isinstance(conv, FoldedConv):
        return conv.run(x, add, relu)
    out = _conv_frozen_bn(conv, norm, x) if isinstance(norm, FrozenBatchNorm2d) else norm(conv(x))
    if add is not None:
        out += add
    return F.relu(out, inplace=True) if relu else out


def _conv_frozen_bn(conv: nn.Conv2d, norm: FrozenBatchNorm2d, x: Tensor) -> Tensor:
    scale, shift = norm.scale_and_shift()
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    trains = torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)
    if not trains or shift.requires_grad or not runs_eagerly():
        return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), shift, *geometry)
    device = x.device.type
    # Asking about a device without autocast, such as meta, raises.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    return _ScaledConv.apply(x, conv.weight, scale, shift, geometry)

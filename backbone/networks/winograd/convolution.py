"""The convolution itself, by the compiled kernels where they run, else by torch's operators."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from . import by_torch, compiled
from .form import PLACES, WEIGHTS


def implementation(channels: int, kernels: int) -> ModuleType:
    """Return `compiled` or `by_torch`, for so many channels of input and output."""
    return compiled if compiled.takes(channels, kernels) else by_torch


def prepare_weight(weight: Tensor) -> Tensor:
    """Return the weights (K, C, 3, 3), transformed in float64, as `winograd` takes them."""
    rows = torch.tensor(WEIGHTS, dtype=torch.float64)
    kernels, channels = weight.shape[:2]
    places = torch.einsum("ia,jb,kcab->ijck", rows, rows, weight.detach().double())
    places = places.reshape(PLACES, channels, kernels).to(weight.dtype)
    return compiled.pack(places) if implementation(channels, kernels) is compiled else places


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], *, relu: bool) -> Tensor:
    """Return the convolution of (N, C, H, W) at stride 1 plus the bias, then the ReLU; channels last in memory.

    Args:
        weight: of `prepare_weight`.
    """
    (images, _, height, width), (top, left) = x.shape, padding
    used = compiled if weight.dim() == 4 else by_torch
    kernels = weight.shape[1] * weight.shape[3] if used is compiled else weight.shape[2]
    out = x.new_empty((images, height + 2 * top - 2, width + 2 * left - 2, kernels))
    used.write(used.by_pixels(x), weight, bias, padding, out, relu=relu)
    return out.permute(0, 3, 1, 2)

"""Receptive fields: the theoretical ones followed through the operators, the effective ones measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..networks.contract import Backbone

aten = torch.ops.aten
# What counts as seen: Luo et al., "Understanding the Effective Receptive Field" (arXiv 1701.04128), Sec. 3.
EFFECTIVE = 1 - 0.9545


@dataclass(frozen=True)
class Field:
    """Input pixels that a feature cell depends on, along one axis (all networks here are symmetric).

    Attributes:
        first, last: of cell 0; below 0 where it reaches into the padding.
        stride: pixels from one cell to the next.
    """

    first: int = 0
    last: int = 0
    stride: int = 1

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Field:
        """Return the field behind a convolution or a pooling."""
        first = self.first - padding * self.stride
        last = self.last + ((kernel - 1) * dilation - padding) * self.stride
        return Field(first, last, self.stride * stride)

    def joined(self, other: Field) -> Field:
        """Return the field of a sum."""
        return Field(min(self.first, other.first), max(self.last, other.last), max(self.stride, other.stride))


class FollowFields(TorchDispatchMode):
    """Knows the field of every tensor that comes from `images`."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.fields = WeakTensorKeyDictionary()
        self.fields[images] = Field()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = [self.fields[value] for value in args if isinstance(value, Tensor) and value in self.fields]
        first = out[0] if isinstance(out, (tuple, list)) else out
        if known and isinstance(first, Tensor):
            self.fields[first] = _behind(func, args, reduce(Field.joined, known))
        return out


def _behind(func, args: tuple, field: Field) -> Field:
    if func is aten.convolution.default:
        _, weight, _, stride, padding, dilation = args[:6]
        return field.window(weight.shape[2], stride[0], padding[0], dilation[0])
    if func in (aten.max_pool2d_with_indices.default, aten.avg_pool2d.default):
        kernel, stride, padding = args[1], args[2] if len(args) > 2 else [], args[3] if len(args) > 3 else [0]
        return field.window(kernel[0], (stride or kernel)[0], padding[0])
    if func is aten.slice.Tensor and args[1] == 2:
        return field.window(1, args[4] if len(args) > 4 else 1, 0)
    return field


def effective_fields(net: Backbone, size: tuple[int, int], *, samples: int = 4, seed: int = 0) -> dict[str, float]:
    """Measure how much of the theoretical field counts: {stage: side in pixels}, for the stages in `net.out_features`.

    The gradient of the cell in the middle of the map with respect to noise images, its magnitude averaged over
    `samples` images and random directions in channel space. The side is the square root of the number of pixels above
    4.55 % of the largest (Luo et al., arXiv 1701.04128). Training widens it.

    Args:
        net: in evaluation mode, with BN statistics that fit its weights (see `backbone.recompute_bn`).
        size: (H, W) of the images; a field larger than the image is cut.
    """
    generator = torch.Generator().manual_seed(seed)
    stages = [stage for stage in net.out_features if stage != "logits"]
    total = dict.fromkeys(stages, torch.zeros(size, dtype=torch.float64))
    for _ in range(samples):
        images = torch.randn(1, net.in_chans, *size, generator=generator).requires_grad_()
        features = net(images)
        for stage in stages:
            height, width = features[stage].shape[2:]
            middle = features[stage][0, :, height // 2, width // 2]
            direction = torch.randn(middle.shape, generator=generator)
            (gradient,) = torch.autograd.grad(middle, images, direction, retain_graph=True)
            total[stage] = total[stage] + gradient[0].abs().sum(0).double()
    return {stage: math.sqrt(int((seen > EFFECTIVE * seen.max()).sum())) for stage, seen in total.items()}

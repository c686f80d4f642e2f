"""Multiply-adds and activations, counted while a network runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass
class Counts:
    """What the convolutions and linear layers of a stage do.

    Attributes:
        layers: their number.
        macs: multiply-adds, without those of the bias; what papers and fvcore call FLOPs.
        activations: elements of their outputs, as fvcore's ActivationCountAnalysis counts them.
    """

    layers: int = 0
    macs: int = 0
    activations: int = 0

    def add(self, macs: int, output: Tensor) -> None:
        self.layers += 1
        self.macs += macs
        self.activations += output.numel()


class Counting(TorchDispatchMode):
    """Counts into `counts[stage]`; set `stage` before each stage runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = ""
        self.counts: dict[str, Counts] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        here = self.counts.setdefault(self.stage, Counts())
        if func is aten.convolution.default:
            here.add(out.numel() * args[1][0].numel(), out)
        elif func is aten.addmm.default:
            here.add(args[1].numel() * out.shape[1], out)
        return out

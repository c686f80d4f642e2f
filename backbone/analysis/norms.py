"""Batch normalisation on the meta device, quickly."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NormsByShape(TorchDispatchMode):
    """Gives a BN's outputs by their shapes: torch itself runs its formula there, dozens of operations without numbers.

    Enter it before other modes, which then see the BN as one operation, as without it.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is not torch.ops.aten.native_batch_norm.default or not args[0].is_meta:
            return func(*args, **(kwargs or {}))
        x = args[0]
        # The output, the batch's means and the inverses of its deviations.
        return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])

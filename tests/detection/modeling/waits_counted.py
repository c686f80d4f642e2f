"""Counts what makes the host wait for a device in a step, on a CPU."""

from __future__ import annotations

import traceback

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detection.modeling import proposals

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "bincount", "_unique2")


def indices_of_a_device(mask: Tensor, number: int) -> Tensor:
    return mask.byte().argsort(descending=True, stable=True)[:number]


class Waits(TorchDispatchMode):
    """Counts the operators that hand a value of the device, or the length of a result, to the host.

    Attributes:
        nms: how often boxes were suppressed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.number = self.nms = 0
        for name in ("tolist", "cpu"):
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))
        monkeypatch.setattr(proposals, "batched_nms", self._suppressing(proposals.batched_nms))
        for module in ("sampling", "waits", "regions"):
            monkeypatch.setattr(f"detection.modeling.{module}.indices", indices_of_a_device)

    def _counted(self, method):
        def call(tensor, *arguments):
            self.number += 1
            return method(tensor, *arguments)

        return call

    def _suppressing(self, function):
        def call(*arguments):
            self.nms, before = self.nms + 1, self.number
            found = function(*arguments)
            self.number = before
            return found

        return call

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function.overloadpacket).removeprefix("aten.")
        waits = name in WAITING
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            by_mask = any(index is not None and index.dtype == torch.bool for index in args[1])
            waits = by_mask and (name == "index" or args[2].numel() > 1)
        waits |= name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        # Sizes of images lie on the host.
        if waits and not any("image_list" in frame.filename for frame in traceback.extract_stack()):
            self.number += 1
        return function(*args, **(kwargs or {}))

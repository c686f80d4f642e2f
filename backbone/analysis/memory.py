"""Memory of activations: what training keeps for the backward pass, and the peak of inference."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def nbytes(net: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.untyped_storage().nbytes() for tensor in (*net.parameters(), *net.buffers()))


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _storages(net: nn.Module) -> set[int]:
    return {_key(tensor) for tensor in (*net.parameters(), *net.buffers())}


class Kept:
    """Counts what autograd saves: {stage: bytes}, each storage once, weights and buffers of `net` left out.

    Use as a context around a forward pass with gradients; set `stage` before each stage runs.
    """

    def __init__(self, net: nn.Module) -> None:
        self.stage = ""
        self.bytes: dict[str, int] = {}
        self._seen: dict[int, Tensor | None] = dict.fromkeys(_storages(net))
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        key = _key(tensor)
        if key not in self._seen:
            # The tensor itself stays, so that no other storage gets its address.
            self._seen[key] = tensor
            self.bytes[self.stage] = self.bytes.get(self.stage, 0) + tensor.untyped_storage().nbytes()
        return tensor

    def __enter__(self) -> Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)


class Peak(TorchDispatchMode):
    """Follows the bytes of the tensors that are alive while a network runs without gradients.

    Attributes:
        bytes: the most at any moment within each stage, images included, weights left out.
    """

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.stage = ""
        self.bytes: dict[str, int] = {}
        self._live = 0
        self._holders: dict[int, int] = {}
        self._weights = _storages(net)
        self._hold(images)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        self.bytes[self.stage] = max(self.bytes.get(self.stage, 0), self._live)
        return out

    def _hold(self, tensor: Tensor) -> None:
        key, size = _key(tensor), tensor.untyped_storage().nbytes()
        if key in self._weights:
            return
        if key not in self._holders:
            self._live += size
        self._holders[key] = self._holders.get(key, 0) + 1
        weakref.finalize(tensor, self._release, key, size).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._live -= size

"""What makes hundreds of tests of large networks quick: memory that is used again, and cheap first weights."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

# Of glibc's allocator (mallopt): up to this size, memory that a tensor gave back serves the next one. By default the
# system takes it and must clear it anew, which is half of the time of a step of VGG-16 on small images.
LIMIT = 1 << 30
# Layers of more numbers are those of VGG's and the pyramid's fully connected heads, and of the widest networks. They
# repeat a block whose length is prime: no two filters of a layer are the same numbers.
LARGE, BLOCK = 4_000_000, 100_003


def keep_memory() -> None:
    """Set it in this process, and for those that it starts."""
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": str(LIMIT), "MALLOC_TRIM_THRESHOLD_": str(LIMIT)}
    trim_threshold, mmap_threshold = -1, -3
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap_threshold, LIMIT)
        libc.mallopt(trim_threshold, LIMIT)


def draw_blocks() -> None:
    """Let torch's initialisations draw one block of numbers for a large layer, and repeat it.

    Most tests fill their networks anew, after torch, torchvision and ours have each drawn 100 million for one layer.
    """
    from torch.nn import init

    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
        setattr(init, name, _in_blocks(getattr(init, name)))


def repeat(values: Any, block: Any) -> None:
    """Write a flat tensor, `block`, into a contiguous one as often as it takes."""
    for part in values.detach().view(-1).split(len(block)):
        part.copy_(block[: len(part)])


class _Large:
    """Stands for a tensor in the functions of torch.nn.init, which end in one of these two calls."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)

    def normal_(self, *arguments: Any, **keywords: Any) -> Any:
        repeat(self._tensor, self._tensor.detach().new_empty(BLOCK).normal_(*arguments, **keywords))
        return self._tensor

    def uniform_(self, *arguments: Any, **keywords: Any) -> Any:
        repeat(self._tensor, self._tensor.detach().new_empty(BLOCK).uniform_(*arguments, **keywords))
        return self._tensor


def _in_blocks(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def initialise(tensor: Any, *arguments: Any, **keywords: Any) -> Any:
        large = tensor.numel() > LARGE and tensor.device.type == "cpu" and tensor.is_contiguous()
        return function(_Large(tensor) if large else tensor, *arguments, **keywords)

    return initialise

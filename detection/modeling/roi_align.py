"""RoIAlign on all threads of a CPU. torchvision's operator runs on one, forward and backward.

Its kernel is called for parts of the regions, and in the backward pass for parts of the channels, at the same time: so
values and gradients are its own to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch
import torchvision  # noqa: F401 (makes the operators known)
from detectron2.layers import ROIAlign
from torch import Tensor, nn

from backbone.networks.conv_norm import is_watched, runs_eagerly

Result = TypeVar("Result")
# Regions of a part at least: fewer take less time than a thread's start.
LEAST_REGIONS = 16


class ThreadedROIAlign(ROIAlign):
    """detectron2's ROIAlign, on a CPU with all of torch's threads."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool (N, C, H, W) at boxes (R, 5), whose first column is the image; return (R, C, h, w)."""
        threads = torch.get_num_threads()
        plain = input.is_quantized or not runs_eagerly() or torch._C._are_functorch_transforms_active()
        if plain or input.device.type != "cpu" or threads == 1 or len(rois) < 2 * LEAST_REGIONS:
            return super().forward(input, rois)
        height, width = self.output_size
        settings = (self.spatial_scale, height, width, self.sampling_ratio, self.aligned)
        return _Pooled.apply(input, rois.to(input.dtype), settings, threads)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, rois: Tensor, settings: tuple, threads: int) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.shape, ctx.settings, ctx.threads = input.shape, settings, threads
        # The operator wants it so; made here, with all threads, it is made once.
        input = input.contiguous()
        parts = rois.chunk(max(1, min(threads, len(rois) // LEAST_REGIONS)))
        operator = torch.ops.torchvision.roi_align
        return torch.cat(_together(lambda part: operator(input, part, *settings), parts))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rois,), (images, channels, height, width) = ctx.saved_tensors, ctx.shape
        parts = grad.chunk(min(ctx.threads, channels), dim=1)
        operator = torch.ops.torchvision._roi_align_backward
        scale, high, wide, sampling_ratio, aligned = ctx.settings

        def pool_back(part: Tensor) -> Tensor:
            size = (images, part.shape[1], height, width)
            return operator(part.contiguous(), rois, scale, high, wide, *size, sampling_ratio, aligned)

        return torch.cat(_together(pool_back, parts), dim=1), None, None, None


def use_all_threads(model: nn.Module) -> None:
    """Let every ROIAlign of detectron2 in `model` use all threads."""
    for module in model.modules():
        if type(module) is ROIAlign and not is_watched(module):
            module.__class__ = ThreadedROIAlign


def _together(work: Callable[[Tensor], Result], parts: Sequence[Tensor]) -> list[Result]:
    """Return work(part) of each, all at once: the operators run without Python's lock."""

    def quietly(part: Tensor) -> Result:
        # A thread has its own switch.
        with torch.no_grad():
            return work(part)

    first, *others = parts
    begun = [_pool(os.getpid(), torch.get_num_threads()).submit(quietly, part) for part in others]
    return [quietly(first), *(future.result() for future in begun)]


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return this process's threads; a forked one has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="roi_align")

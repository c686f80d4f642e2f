"""Labels of whole images, also window by window, at one scale or averaged over several and over the mirror image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.images import resize_image
from ..common.preprocessing import Preprocessing
from ..engine.solver import device_of
from .networks import OUT


@dataclass(frozen=True)
class Inference:
    """How an image is tested.

    Attributes:
        prepare: from (N, C, H, W) pixels, RGB or as the network has them, to its input.
        shorter_side: length that scale 1 stands for; 0 for the image's own.
        window: side of the windows that the scaled image is cut into; 0: it is seen whole. The scores of a pixel are
            averaged over its windows.
        stride: pixels from one window to the next.
        amp: type of mixed precision, None for float32.
    """

    prepare: Callable[[Tensor], Tensor]
    device: torch.device
    shorter_side: int = 0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int = 0
    stride: int = 0
    amp: torch.dtype | None = None


def prepared(images: Tensor, preprocessing: Preprocessing, config: Any) -> Tensor:
    """Return network input from pixels, (N, C, H, W)."""
    layout = torch.channels_last if config.MODEL.CHANNELS_LAST else torch.contiguous_format
    return preprocessing(images).contiguous(memory_format=layout)


def inference_of(config: Any, prepare: Callable[[Tensor], Tensor]) -> Inference:
    """Return how TEST asks for images to be tested."""
    test, amp = config.TEST, config.SOLVER.AMP
    return Inference(
        prepare,
        device_of(config),
        shorter_side=test.SHORTER_SIDE,
        scales=tuple(test.SCALES),
        flip=test.FLIP,
        window=test.WINDOW,
        stride=test.WINDOW_STRIDE or -(-2 * test.WINDOW // 3),
        amp=getattr(torch, amp.DTYPE) if amp.ENABLED else None,
    )


@torch.no_grad()
def predict(network: nn.Module, image: np.ndarray, how: Inference) -> Tensor:
    """Return the class of every pixel.

    Args:
        network: a SegmentationNetwork in eval mode.
        image: (H, W, C), RGB uint8 or as the network has it.

    Returns:
        (H, W) int64, on the device.
    """
    total: Tensor | None = None
    views = len(how.scales) * (1 + how.flip)
    for scale in how.scales:
        pixels = _scaled(image, scale, how)
        for mirrored in (False, True)[: 1 + how.flip]:
            scores = _scores(network, pixels, image.shape[:2], how, mirrored=mirrored)
            if views == 1:
                return scores.argmax(0)
            scores = scores.softmax(0)
            total = scores if total is None else total.add_(scores)
    return total.argmax(0)


def _scaled(image: np.ndarray, scale: float, how: Inference) -> Tensor:
    height, width = image.shape[:2]
    factor = scale * (how.shorter_side / min(height, width) if how.shorter_side else 1.0)
    resized = resize_image(image, max(1, round(width * factor)), max(1, round(height * factor)))
    return torch.from_numpy(np.ascontiguousarray(resized)).to(how.device).permute(2, 0, 1)[None]


def _scores(network: nn.Module, pixels: Tensor, size: tuple[int, int], how: Inference, *, mirrored: bool) -> Tensor:
    images = how.prepare(pixels.flip(-1) if mirrored else pixels)
    with torch.autocast(how.device.type, how.amp) if how.amp else contextlib.nullcontext():
        scores = _windows(network, images, size, how) if how.window else network(images, size)[OUT][0]
    return scores.flip(-1) if mirrored else scores


def _windows(network: nn.Module, images: Tensor, size: tuple[int, int], how: Inference) -> Tensor:
    """Return the scores of an image (1, C, H, W) from those of its windows: (classes, *size)."""
    height, width = images.shape[-2:]
    total: Tensor | None = None
    times = torch.zeros(height, width, device=images.device)
    for top in starts(height, how.window, how.stride):
        for left in starts(width, how.window, how.stride):
            place = np.s_[..., top : top + how.window, left : left + how.window]
            scores = network(images[place])[OUT][0]
            if total is None:
                total = scores.new_zeros(len(scores), height, width)
            total[place] += scores
            times[place] += 1
    return F.interpolate((total / times)[None], size, mode="bilinear", align_corners=False)[0]


def starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along a side: a stride apart, the last one at the end; [0] for a side not longer."""
    last = max(0, length - window)
    return [*range(0, last, stride), last]

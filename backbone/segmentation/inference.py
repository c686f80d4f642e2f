"""Labels of whole images, at one scale or averaged over several and over the mirror image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..common.images import resize_image
from .networks import OUT


@dataclass(frozen=True)
class Inference:
    """How an image is tested.

    Attributes:
        prepare: from (N, 3, H, W) RGB pixels 0..255 to network input.
        shorter_side: length that scale 1 stands for; 0 for the image's own.
        amp: type of mixed precision, None for float32.
    """

    prepare: Callable[[Tensor], Tensor]
    device: torch.device
    shorter_side: int = 0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    amp: torch.dtype | None = None


@torch.no_grad()
def predict(network: nn.Module, image: np.ndarray, how: Inference) -> Tensor:
    """Return the class of every pixel.

    Args:
        network: a SegmentationNetwork in eval mode.
        image: (H, W, 3) RGB uint8.

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
        scores = network(images, size)[OUT][0]
    return scores.flip(-1) if mirrored else scores

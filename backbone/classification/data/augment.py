"""Augmentation of whole batches on their device, without a loop over images.

Random values come from a NumPy generator that the caller seeds by step: few numbers, drawn on the CPU and moved, so
the same seed gives the same batch on every device, and a resumed run what it would have had. They are drawn for the
batch of all processes, of which each takes its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...common.errors import ConfigError
from ...engine.loading import to_device
from ...engine.share import Share

# Of the covariance of ImageNet's RGB pixels in 0..1, as fb.resnet.torch has them; one eigenvector a column.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

# A batch of one process.
ALL = Share()


def pad_crop_flip(
    images: Tensor, random: np.random.Generator, *, pad: int = 4, flip: bool = True, share: Share = ALL
) -> Tensor:
    """Shift each image by up to `pad` pixels, zeros moving in, and mirror every second one, by chance.

    The same as padding by zeros and cutting at random (He et al., 2015, Sec. 4.2).

    Args:
        images: (N, C, H, W) of any type.
        share: what `images` are of the batch.

    Returns:
        The same shape and type, contiguous.
    """
    number, channels, height, width = images.shape
    whole = number * share.processes
    top, left = (share.of(random.integers(2 * pad + 1, size=whole)) for _ in range(2))
    mirrored = share.of(random.random(whole) < 0.5) if flip else np.zeros(number, bool)
    padded = F.pad(images, (pad,) * 4)
    # Of each image the place of its first pixel in the padded one, and the step to the next one in the row.
    firsts = top * padded.shape[3] + left + np.where(mirrored, width - 1, 0)
    first, step = _moved(np.stack([firsts, np.where(mirrored, -1, 1)]), images)[:, :, None, None]
    rows, columns = _grid(height, width, padded.shape[3], images.device)
    places = (first + rows + step * columns).view(number, 1, -1)
    return padded.flatten(2).gather(2, places.expand(-1, channels, -1)).view(images.shape)


@lru_cache(maxsize=16)
def _grid(height: int, width: int, row: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where the rows (H, 1) of a window begin in an image whose rows are `row` long, and its columns (1, W)."""
    # Made in inference mode, a tensor could not be used in training later.
    with torch.inference_mode(False):
        rows, columns = torch.arange(height)[:, None] * row, torch.arange(width)[None]
        return to_device(rows, device), to_device(columns, device)


def lighting(
    images: Tensor,
    random: np.random.Generator,
    *,
    std: float = 0.1,
    eigenvalues: Sequence[float] = EIGENVALUES,
    eigenvectors: Sequence[Sequence[float]] = EIGENVECTORS,
    share: Share = ALL,
) -> Tensor:
    """Add multiples of the principal components of colour to each image (Krizhevsky et al., 2012, Sec. 4.1).

    Args:
        images: (N, 3, H, W) float, RGB, 0..255.
        std: of the normal variable by which each component, times its eigenvalue, is multiplied.
        eigenvalues, eigenvectors: of the pixels' covariance in 0..1; one vector a column.
        share: what `images` are of the batch.

    Returns:
        A new tensor; values may leave 0..255.
    """
    alphas = share.of(random.normal(0.0, std, (len(images) * share.processes, 3)))
    shifts = 255 * (alphas * np.asarray(eigenvalues)) @ np.asarray(eigenvectors).T
    return images + _moved(shifts, images).to(images.dtype)[:, :, None, None]


def mixup(
    images: Tensor, labels: Tensor, classes: int, alpha: float, random: np.random.Generator, share: Share = ALL
) -> tuple[Tensor, Tensor]:
    """Blend each image and its target with another's of the batch (Zhang et al., 2018).

    One share from Beta(alpha, alpha) and one permutation a batch, as the authors do.

    Args:
        images: (N, C, H, W) float.
        labels: (N,) int64.
        share: what they are of the batch; with several processes a collective call.

    Returns:
        Blended images, and the classes' shares (N, classes) float32.
    """
    kept = float(random.beta(alpha, alpha))
    other = random.permutation(len(images) * share.processes)
    targets = _blend_targets(labels, share.take(labels, other), classes, kept)
    return torch.lerp(share.take(images, other), images, kept), targets


def cutmix(
    images: Tensor, labels: Tensor, classes: int, alpha: float, random: np.random.Generator, share: Share = ALL
) -> tuple[Tensor, Tensor]:
    """Replace a rectangle of each image by another image's, and the same share of its target (Yun et al., 2019).

    The rectangle has the image's aspect, an area of 1 - Beta(alpha, alpha) and a centre anywhere; what sticks out is
    cut off, and the targets follow the area that was replaced. One rectangle and one permutation a batch.

    Args, returns: as `mixup`; images may also be uint8.
    """
    height, width = images.shape[2:]
    other = random.permutation(len(images) * share.processes)
    half = 0.5 * float(1 - random.beta(alpha, alpha)) ** 0.5
    (top, bottom), (left, right) = (_span(random, side, half) for side in (height, width))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = share.take(images[:, :, top:bottom, left:right], other)
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, _blend_targets(labels, share.take(labels, other), classes, kept)


def _span(random: np.random.Generator, side: int, half: float) -> tuple[int, int]:
    """Draw a rectangle's start and end along an axis; `half` of its length is given as a share of the side."""
    centre, reach = int(random.integers(side)), int(half * side)
    return max(0, centre - reach), min(side, centre + reach)


def _blend_targets(labels: Tensor, others: Tensor, classes: int, kept: float) -> Tensor:
    targets, theirs = (F.one_hot(values, classes).float() for values in (labels, others))
    return torch.lerp(theirs, targets, kept)


def normalise(
    images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float], *, channels_last: bool = False
) -> Tensor:
    """Return (images - mean) / std as float32.

    Args:
        images: (N, 3, H, W), uint8 or float.
        mean: a number a channel, or an image (3, H, W).
        std: a number a channel.
        channels_last: the memory format of the result.

    Raises:
        ConfigError: the mean image is of another size than the images.
    """
    if isinstance(mean, Tensor) and mean.ndim == 3:
        if mean.shape[1:] != images.shape[2:]:
            raise ConfigError(
                f"the mean image has {tuple(mean.shape[1:])} pixels, the images {tuple(images.shape[2:])}; "
                "take MODEL.PIXEL_MEAN for images of several sizes"
            )
        offset = mean.to(images.device, torch.float32, non_blocking=True)[None]
    else:
        offset = _channels(tuple(float(value) for value in mean), images.device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = images.to(torch.float32, memory_format=layout)
    # Of float32 input `pixels` may be the caller's own tensor, so the first operation makes a new one.
    return pixels.sub(offset).div_(_channels(tuple(float(value) for value in std), images.device))


def resize_batch(images: Tensor, size: int) -> Tensor:
    """Resize (N, C, H, W) to (N, C, size, size) of the same type: bilinear, antialiased, rounded as Pillow does."""
    if images.shape[2:] == (size, size):
        return images
    if images.device.type == "cpu" or images.is_floating_point():
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return resized.add_(0.5).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=16)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as (1, C, 1, 1) on the device, moved there once."""
    # Made in inference mode, a tensor could not be used in training later.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def _moved(values: np.ndarray, like: Tensor) -> Tensor:
    return to_device(torch.from_numpy(values), like.device)

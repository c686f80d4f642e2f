"""Batches on the device, read by worker processes. Order and draws follow from seed and position alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...common.errors import DataError
from ...engine import distributed
from ...engine.broken import BrokenImages, read_or_replace
from ...engine.defaults import color_jitter
from ...engine.loading import Batch, Item, batches_of_steps, make_loader, resolve_workers, until_error
from .augment import View, training_view
from .sets import SegmentationSet

# Stream of random numbers, apart from the order's.
VIEWS = 1


def view_of(config: Any) -> View:
    """Return the training view of INPUT."""
    node, mean = config.INPUT, config.MODEL.PIXEL_MEAN
    fill = tuple(reversed(mean) if node.FORMAT == "BGR" else mean)
    return View(node.TRAIN_SIZE, tuple(node.SCALE), node.SHORTER_SIDE, node.FLIP, fill, color_jitter(node))


def training_batches(
    images: SegmentationSet,
    config: Any,
    device: torch.device,
    start: int,
    end: int,
    broken: BrokenImages | None = None,
) -> Iterator[Batch]:
    """Yield this process's batches of the steps start..end-1; an image that cannot be read is replaced by another.

    Raises:
        RunError: more than DATA.MAX_BAD_IMAGES images were broken.
    """
    counted = broken or BrokenImages(config.DATA.MAX_BAD_IMAGES)
    loader = make_loader(
        _Views(images, config),
        workers=resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size()),
        pin_memory=device.type == "cuda",
        batches=batches_of_steps(range(len(images)), config, start, end),
        collate=_collate,
    )
    for pixels, labels, bad in until_error(loader):
        counted.add(bad)
        # (N, H, W, 3) in memory is the channels_last layout of (N, 3, H, W).
        pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
        yield Batch(pixels, labels.to(device, non_blocking=True).long())


def whole_images(
    images: SegmentationSet, indices: Sequence[int], config: Any
) -> Iterator[tuple[int, np.ndarray | str, np.ndarray | None]]:
    """Yield index, image and labels of some images, in order; what is wrong with an image that cannot be read.

    Raises:
        DataError: labels are missing or wrong.
    """
    workers = resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size())
    loader = make_loader(_Whole(images, indices), workers=workers, pin_memory=False)
    for (sample,) in until_error(loader):
        yield sample


class _Views(Dataset):
    """Training views by (position, index); the position seeds the draws."""

    def __init__(self, images: SegmentationSet, config: Any) -> None:
        self.images = images
        self.seed = config.SEED
        self.view = view_of(config)

    def __getitem__(self, item: Item) -> tuple[np.ndarray, np.ndarray, list[str]]:
        position, index = item
        random = np.random.default_rng((self.seed, VIEWS, position))
        sample, bad = read_or_replace(self.images.read, index, len(self.images), random)
        return (*training_view(*sample, random, self.view), bad)


class _Whole(Dataset):
    def __init__(self, images: SegmentationSet, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[int, np.ndarray | str, np.ndarray | None]:
        index = self.indices[place]
        label = self.images.label(index)
        try:
            return index, self.images.image(index, label), label
        except DataError as error:
            return index, str(error), None


def _collate(samples: list[tuple[np.ndarray, np.ndarray, list[str]]]) -> tuple[Tensor, Tensor, list[str]]:
    images, labels, bad = zip(*samples)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), list(chain.from_iterable(bad))

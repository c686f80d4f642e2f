"""Training batches on the device: from images in memory, or read from files by worker processes.

Order and random draws follow from the seed and the position alone (see `backbone.engine.loading`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...common.errors import DataError
from ...common.images import decode_image
from ...engine import distributed
from ...engine.broken import BrokenImages, read_or_replace
from ...engine.class_weights import balanced_repeats
from ...engine.loading import (
    Batch,
    BatchSampler,
    Item,
    batches_of_steps,
    make_loader,
    resolve_workers,
    to_device,
    until_error,
)
from .decode import CropSpec, training_crop
from .sets import ImagesInMemory, LabelledImages


def make_sampler(images: LabelledImages, config: Any, start: int, end: int) -> BatchSampler:
    """Return this process's batches of (position, index), of the steps start..end-1."""
    repeats = balanced_repeats(images.labels, len(images.classes)) if config.DATA.BALANCED else None
    return batches_of_steps(range(len(images)), config, start, end, repeats=repeats)


def size_at(config: Any, step: int) -> int:
    """Return the side of the training images at a step; see INPUT.PROGRESSIVE."""
    done = step / max(1, config.SOLVER.MAX_ITER)
    for share, size in sorted(tuple(pair) for pair in config.INPUT.PROGRESSIVE):
        if done < share:
            return int(size)
    return config.INPUT.TRAIN_SIZE


class BatchesInMemory:
    """All images lie on the device; a batch is an indexing of them."""

    def __init__(self, images: ImagesInMemory, config: Any, device: torch.device) -> None:
        self.images = images
        self.config = config
        self.pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.broken = BrokenImages()

    def steps(self, start: int, end: int) -> Iterator[Batch]:
        """Yield the batches of the steps start..end-1."""
        for indices in make_sampler(self.images, self.config, start, end).indices():
            chosen = to_device(torch.from_numpy(np.ascontiguousarray(indices)), self.pixels.device)
            yield Batch(self.pixels[chosen], self.labels[chosen])


class BatchesFromFiles:
    """Worker processes read, crop and flip; the device gets uint8.

    Attributes:
        broken: the images that have been replaced.
    """

    def __init__(self, images: LabelledImages, config: Any, device: torch.device) -> None:
        self.images = images
        self.config = config
        self.device = device
        self.broken = BrokenImages(config.DATA.MAX_BAD_IMAGES)

    def steps(self, start: int, end: int) -> Iterator[Batch]:
        """Yield the batches of the steps start..end-1.

        Raises:
            RunError: more than DATA.MAX_BAD_IMAGES images were broken.
        """
        config, device = self.config, self.device
        loader = make_loader(
            _Crops(self.images, config),
            workers=resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size()),
            pin_memory=device.type == "cuda",
            batches=make_sampler(self.images, config, start, end),
            collate=_collate,
        )
        for images, labels, bad in until_error(loader):
            self.broken.add(bad)
            # (N, H, W, 3) in memory is the channels_last layout of (N, 3, H, W).
            pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2)
            yield Batch(pixels, labels.to(device, non_blocking=True))


class _Crops(Dataset):
    """Training crops by (position, index); the position seeds the draws and tells the step."""

    def __init__(self, images: LabelledImages, config: Any) -> None:
        node = config.INPUT
        self.images = images
        self.config = config
        self.spec = CropSpec(
            kind=node.CROP,
            size=node.TRAIN_SIZE,
            shorter_side=tuple(node.SHORTER_SIDE),
            area=tuple(node.AREA),
            flip=node.FLIP,
        )

    def __getitem__(self, item: Item) -> tuple[np.ndarray, int, list[str]]:
        position, index = item
        random = np.random.default_rng((self.config.SEED, 1, position))
        spec = replace(self.spec, size=size_at(self.config, position // self.config.SOLVER.IMS_PER_BATCH))
        crop, bad = read_or_replace(lambda index: self._crop(index, random, spec), index, len(self.images), random)
        return (*crop, bad)

    def _crop(self, index: int, random: np.random.Generator, spec: CropSpec) -> tuple[np.ndarray, int]:
        try:
            content, reading = self.images.content(index), self.images.reading
            if content.ndim == 1 and reading["channel_order"] != "RGB":
                content = decode_image(content, "the file", **reading)
            return training_crop(content, random, spec), int(self.images.labels[index])
        except DataError as error:
            raise DataError(f"{self.images.place(index)}: {error}") from None


def _collate(samples: list[tuple[np.ndarray, int, list[str]]]) -> tuple[Tensor, Tensor, list[str]]:
    images = torch.from_numpy(np.stack([crop for crop, _, _ in samples]))
    labels = torch.tensor([label for _, label, _ in samples])
    return images, labels, [message for _, _, bad in samples for message in bad]


def make_batches(images: LabelledImages, config: Any, device: torch.device) -> BatchesInMemory | BatchesFromFiles:
    """Return the batches of a training set, as it is kept."""
    if isinstance(images, ImagesInMemory):
        return BatchesInMemory(images, config, device)
    return BatchesFromFiles(images, config, device)

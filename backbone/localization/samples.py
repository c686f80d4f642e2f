"""Training samples: crops with sampled anchors for an RPN, warped regions for R-CNN. Seed and position decide alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..classification.data.decode import CropSpec, decode_upright, draw_box, resize
from ..common.errors import DataError
from ..engine import distributed
from ..engine.broken import BrokenImages, read_or_replace
from ..engine.loading import Item, batches_of_steps, make_loader, resolve_workers, until_error
from .boxes import ious, make_anchors, sample_anchors
from .data import BoxedImages
from .networks import STRIDE

# A crop is drawn again, at most so often, until it holds the centre of a box.
TRIES = 10
# A region of R-CNN is an object where it overlaps one so much (Girshick et al., arXiv 1311.2524).
REGION_IOU = 0.5
Sample = tuple[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class LocalizationBatch:
    """A process's share of one step; S references an image: the sampled anchors of an RPN, or the region of R-CNN.

    Attributes:
        images: (N, 3, H, W) uint8, RGB.
        labels: (N,) int64.
        places: (N, S) int64, where the references stand among the network's outputs.
        positive: (N, S) bool.
        references, boxes: (N, S, 4) float32, and the boxes that positive ones are to become.
    """

    images: Tensor
    labels: Tensor
    places: Tensor
    positive: Tensor
    references: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> LocalizationBatch:
        return LocalizationBatch(*(getattr(self, field.name)[rows] for field in fields(self)))


def training_batches(
    images: BoxedImages,
    config: Any,
    device: torch.device,
    steps: tuple[int, int],
    broken: BrokenImages,
    proposals: tuple[np.ndarray, np.ndarray] | None,
) -> Iterator[LocalizationBatch]:
    """Yield this process's batches of the steps `steps[0]` to `steps[1]` - 1.

    Args:
        proposals: of R-CNN, boxes (N, P, 4) of every training image and how many there are, (N,).

    Raises:
        RunError: more than DATA.MAX_BAD_IMAGES images were broken.
    """
    samples = Crops(images, config) if proposals is None else Regions(images, config, *proposals)
    loader = make_loader(
        samples,
        workers=resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size()),
        pin_memory=device.type == "cuda",
        batches=batches_of_steps(range(len(images)), config, *steps),
        collate=_collate,
    )
    for pixels, *targets, bad in until_error(loader):
        broken.add(bad)
        pixels, *targets = (tensor.to(device, non_blocking=True) for tensor in (pixels, *targets))
        yield LocalizationBatch(pixels.permute(0, 3, 1, 2), *targets)


class _Samples(Dataset, ABC):
    """Samples by (position, index); the position seeds the draws."""

    def __init__(self, images: BoxedImages, config: Any) -> None:
        self.images = images
        self.seed = config.SEED
        self.size = config.INPUT.TRAIN_SIZE
        self.flip = config.INPUT.FLIP

    def __getitem__(self, item: Item) -> tuple[Sample, list[str]]:
        position, index = item
        random = np.random.default_rng((self.seed, 1, position))
        return read_or_replace(lambda index: self._sample(index, random), index, len(self.images), random)

    def _sample(self, index: int, random: np.random.Generator) -> Sample:
        try:
            image = decode_upright(self.images.content(index))
        except DataError as error:
            raise DataError(f"{self.images.place(index)}: {error}") from None
        mirrored = self.flip and random.random() < 0.5
        view, places, positive, references, boxes = self.view(image, index, random, mirrored)
        view = np.ascontiguousarray(cv2.flip(view, 1) if mirrored else view)
        arrays = (references.astype(np.float32), boxes.astype(np.float32))
        return view, int(self.images.labels[index]), places, positive, *arrays

    @abstractmethod
    def view(
        self, image: np.ndarray, index: int, random: np.random.Generator, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the view, not yet mirrored, and the targets of LocalizationBatch, mirrored if asked for."""


class Crops(_Samples):
    """Random crops, as in classification, with sampled anchors; boxes are cut to the crop."""

    def __init__(self, images: BoxedImages, config: Any) -> None:
        super().__init__(images, config)
        model = config.MODEL
        self.spec = CropSpec("shorter_side", self.size, tuple(config.INPUT.SHORTER_SIDE), flip=False)
        self.number = model.ANCHORS_PER_IMAGE
        side = -(-self.size // STRIDE)
        self.anchors = make_anchors(side, side, STRIDE, model.ANCHOR_SIZES, model.ANCHOR_RATIOS).reshape(-1, 4)

    def view(
        self, image: np.ndarray, index: int, random: np.random.Generator, mirrored: bool
    ) -> tuple[np.ndarray, ...]:
        objects = self.images.boxes_of(index)
        for _ in range(TRIES):
            x, y, width, height = draw_box(image.shape[1], image.shape[0], random, self.spec)
            boxes = (objects - (x, y, x, y)) * np.array([self.size / width, self.size / height] * 2)
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            if ((centres >= 0) & (centres < self.size)).all(1).any():
                break
        boxes = boxes.clip(0, self.size)
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
        boxes = _flip(boxes, self.size) if mirrored else boxes
        places, positive, owners = sample_anchors(self.anchors, boxes, random, self.number)
        crop = resize(image[y : y + height, x : x + width], self.size, self.size)
        return crop, places, positive, self.anchors[places], owners


class Regions(_Samples):
    """One of an image's proposals, drawn evenly, cut out and warped; it is an object at IoU 0.5 or more."""

    def __init__(self, images: BoxedImages, config: Any, proposals: np.ndarray, counts: np.ndarray) -> None:
        super().__init__(images, config)
        self.proposals, self.counts = proposals, counts

    def view(
        self, image: np.ndarray, index: int, random: np.random.Generator, mirrored: bool
    ) -> tuple[np.ndarray, ...]:
        number = int(self.counts[index])
        if not number:
            raise DataError(f"{self.images.place(index)}: has no proposals, as it could not be read for them")
        region = self.proposals[index, int(random.integers(number))][None].astype(np.float32)
        objects = self.images.boxes_of(index)
        overlap = ious(region, objects)[0]
        positive = np.array([overlap.max() >= REGION_IOU])
        owner = objects[[int(overlap.argmax())]] if positive[0] else np.zeros((1, 4), dtype=np.float32)
        if mirrored:
            # The regression is relative to the region, which is mirrored about its own middle.
            owner = _flip(owner, region[0, 0] + region[0, 2])
        return warp(image, region[0], self.size), np.zeros(1, dtype=np.int64), positive, region, owner


def _flip(boxes: np.ndarray, edge: float) -> np.ndarray:
    return np.stack([edge - boxes[:, 2], boxes[:, 1], edge - boxes[:, 0], boxes[:, 3]], axis=1)


def warp(image: np.ndarray, region: np.ndarray, size: int) -> np.ndarray:
    """Return a region of whole pixels of an image, resized to (size, size, 3) whatever its aspect."""
    x0, y0, x1, y1 = region.astype(int).tolist()
    return resize(np.ascontiguousarray(image[y0:y1, x0:x1]), size, size)


def _collate(samples: list[tuple[Sample, list[str]]]) -> tuple[Any, ...]:
    pixels, labels, places, positive, references, boxes = zip(*(sample for sample, _ in samples))
    arrays = (np.stack(values) for values in (pixels, labels, places, positive, references, boxes))
    return (*(torch.from_numpy(array) for array in arrays), [message for _, bad in samples for message in bad])

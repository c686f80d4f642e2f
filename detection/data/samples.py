"""Samples of a detection set for the loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch.utils.data import Dataset

from backbone.engine.loading import Item

from .mapper import Mapper
from .sets import DetectionSet


class TrainingSamples(Dataset):
    """Samples by (position, index); the position seeds the sample's random draws."""

    def __init__(self, mapper: Mapper, seed: int) -> None:
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, item: Item) -> dict[str, Any]:
        position, index = item
        return self.mapper(index, np.random.default_rng((self.seed, 1, position)))


class EvaluationSamples(Dataset):
    """The images of `indices` in order."""

    def __init__(self, mapper: Mapper, indices: Sequence[int]) -> None:
        self.mapper = mapper
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return self.mapper(self.indices[item])


def repeat_factors(images: DetectionSet, used: Sequence[int], threshold: float, **form: bool) -> np.ndarray:
    """Return how often each of the `used` images comes in an epoch, by detectron2's RepeatFactorTrainingSampler.

    Args:
        threshold: share of the images below which a class makes its images come more often.
        form: `sqrt`, which detectron2's main branch has.
    """
    labels = [np.unique(images.labels[images.starts[index] : images.starts[index + 1]]).tolist() for index in used]
    records = [{"annotations": [{"category_id": label} for label in own]} for own in labels]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, threshold, **form)
    return factors.numpy().astype(np.float64)


def aspect_groups(sizes: np.ndarray) -> np.ndarray:
    """Return 0 for images (N, 2) at least as high as wide, 1 for the others."""
    return (sizes[:, 0] > sizes[:, 1]).astype(np.int64)

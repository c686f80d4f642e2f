"""Samples of a detection set for the loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from backbone.engine.loading import Item

from .mapper import Mapper


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


def aspect_groups(sizes: np.ndarray) -> np.ndarray:
    """Return 0 for images (N, 2) at least as high as wide, 1 for the others."""
    return (sizes[:, 0] > sizes[:, 1]).astype(np.int64)

"""Samples of a detection set for the loader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch.utils.data import Dataset

from backbone.common.errors import DataError, ImageSizeError
from backbone.engine.broken import read_or_replace
from backbone.engine.loading import Item

from .mapper import Mapper
from .sets import DetectionSet

# Makes the sample of an image, by its place in the set.
Reader = Callable[[int], dict[str, Any]]


class TrainingSamples(Dataset):
    """Samples by (position, index); the position seeds the sample's random draws."""

    def __init__(self, mapper: Mapper, seed: int) -> None:
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, item: Item) -> dict[str, Any]:
        position, index = item
        return self.mapper(index, self.random_at(position))

    def random_at(self, position: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, 1, position))


class SparingSamples(TrainingSamples):
    """TrainingSamples in which another image stands in for one that cannot be read.

    `broken` in its sample holds what is wrong, a message an image.

    Args:
        used: the indices, in order, of the images that are trained on.
    """

    def __init__(self, mapper: Mapper, seed: int, used: Sequence[int]) -> None:
        super().__init__(mapper, seed)
        self.used = np.asarray(used)

    def __getitem__(self, item: Item) -> dict[str, Any]:
        position, index = item
        random = self.random_at(position)

        def read(place: int) -> dict[str, Any] | ImageSizeError:
            try:
                return self.mapper(int(self.used[place]), random)
            except ImageSizeError as error:
                # Not the image is wrong, but all its boxes are; to leave it out would hide that.
                return error

        sample, broken = read_or_replace(read, int(np.searchsorted(self.used, index)), len(self.used), random)
        if isinstance(sample, ImageSizeError):
            raise DataError(str(sample))
        return {**sample, "broken": broken} if broken else sample


class EvaluationSamples(Dataset):
    """The images of `indices` in order.

    Args:
        lenient: give what is wrong with an image that cannot be read, in its place.
    """

    def __init__(self, mapper: Reader, indices: Sequence[int], *, lenient: bool = False) -> None:
        self.mapper = mapper
        self.indices = indices
        self.lenient = lenient

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, Any] | str:
        try:
            return self.mapper(self.indices[item])
        except ImageSizeError:
            raise
        except DataError as error:
            if not self.lenient:
                raise
            return str(error)


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

"""Weights of classes in a loss, by config keys of the tasks; and their sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.errors import ConfigError
from ..common.text import count, some
from .config import brief


def add_class_weights(solver: Any) -> None:
    """Add the keys that `class_weights` reads to SOLVER."""
    # Weight of each class in the loss, in the order of the classes; () for 1 each. Of images and pixels, the loss is a
    # weighted mean, as that of torch's cross_entropy: only their ratios matter. In a detector, the background has 1.
    solver.CLASS_WEIGHTS = ()
    # Weight each class by (median / n) to this power, n its number in the training set: 0 for none, 1 to balance the
    # classes, 0.5 for half of the way. It multiplies CLASS_WEIGHTS.
    solver.CLASS_BALANCE = 0.0


def check_class_weights(config: Any, source: str, classes: Sequence[str] = ()) -> None:
    """Raise ConfigError for weights that cannot be, or are not as many as the classes, once these are known."""
    given = config.SOLVER.CLASS_WEIGHTS
    fits = all(type(weight) in (int, float) and 0 <= weight < float("inf") for weight in given)
    if not fits or (given and not any(given)):
        raise ConfigError(f"{source}: SOLVER.CLASS_WEIGHTS holds numbers, 0 or more, not all 0; not {brief(given)}")
    if given and classes and len(given) != len(classes):
        raise ConfigError(
            f"{source}: SOLVER.CLASS_WEIGHTS has {count(len(given), 'number')}, the data has {len(classes)} classes; "
            f"give one for each, in the order {some(classes)}"
        )


def class_weights(solver: Any, numbers: np.ndarray | None, classes: int) -> np.ndarray:
    """Return the weight of each class, (classes,) float64.

    Args:
        numbers: (classes,) how often each class occurs in the training set; None where nothing is trained.
    """
    weights = np.asarray(solver.CLASS_WEIGHTS or [1.0] * classes, dtype=np.float64)
    return weights if numbers is None else weights * balancing(numbers, solver.CLASS_BALANCE)


def balancing(numbers: np.ndarray, power: float) -> np.ndarray:
    """Return (median / number)^power of each class, 1 for a class that does not occur.

    The median is over the classes that occur; a power of 1 is median-frequency balancing (Eigen and Fergus, 2015), with
    frequencies over the whole set.
    """
    present = numbers > 0
    return np.divide(np.median(numbers[present]), numbers, out=np.ones(len(numbers)), where=present) ** power


def balanced_repeats(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each image comes in an epoch, so that every class comes equally often; see `EpochSampler`.

    Args:
        labels: (N,) classes of the images.

    Returns:
        (N,), N / (k n) for an image of a class of n among k classes that there are; their sum is N.
    """
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / ((counts > 0).sum() * counts.clip(min=1)))[labels]

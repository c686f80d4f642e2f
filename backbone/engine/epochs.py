"""A schedule in epochs: the config's course, stretched to the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from ..common.errors import ConfigError
from ..common.text import count
from .config import get, put
from .scale import ITERATION_KEYS

EPOCHS, LENGTH = "SOLVER.EPOCHS", "SOLVER.MAX_ITER"


def fit_epochs(config: Any, count_images: Callable[[], int], given: Collection[str] = ()) -> tuple[Any, list[str]]:
    """Set SOLVER.MAX_ITER to SOLVER.EPOCHS passes over the training set, other counts of iterations in proportion.

    Fitting a fitted config again changes nothing. A key on the command line is taken as it stands.

    Args:
        count_images: counts them; called where the schedule is in epochs, for it takes seconds of a large set.
        given: keys that the user gave on the command line.

    Returns:
        A frozen config, and what was set, a line each.

    Raises:
        ConfigError: EPOCHS and MAX_ITER are both given.
    """
    solver = config.SOLVER
    if not solver.EPOCHS:
        return config, []
    if LENGTH in given:
        if EPOCHS in given:
            raise ConfigError(f"{EPOCHS} and {LENGTH} are two lengths of one training; give one of them")
        return config, [f"{LENGTH} {solver.MAX_ITER:,} was given, {EPOCHS} {solver.EPOCHS:g} of the config is left out"]
    images = count_images()
    wanted = max(1, math.ceil(solver.EPOCHS * images / solver.IMS_PER_BATCH))
    fitted = config.clone()
    fitted.defrost()
    for key in ITERATION_KEYS:
        value = get(config, key)
        if key in given or not value or not solver.MAX_ITER:
            continue
        put(fitted, key, _stretch(value, wanted, solver.MAX_ITER))
    fitted.SOLVER.MAX_ITER = wanted
    fitted.freeze()
    names = {key: get(fitted, key) for key in ITERATION_KEYS if key != LENGTH and get(fitted, key)}
    rest = ", ".join(f"{key} {value}" for key, value in names.items())
    passes = f"{EPOCHS} {solver.EPOCHS:g} of {count(images, 'image')}"
    return fitted, [f"{passes}: {LENGTH} {wanted:,}" + (f"; in proportion {rest}" if rest else "")]


def _stretch(value: int | tuple[int, ...], length: int, former: int) -> int | tuple[int, ...]:
    if isinstance(value, tuple):
        return tuple(_stretch(item, length, former) for item in value)
    return max(1, round(value * length / former))

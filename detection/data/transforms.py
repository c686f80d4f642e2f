"""Augmentation of the user's own, on samples of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

# Takes a sample and its random generator; returns the sample, changed or another one.
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
Given = TypeVar("Given", bound=Transform)
_transforms: dict[str, Transform] = {}


def register_transform(transform: Given) -> Given:
    """Add a transform to the training samples of all runs that begin in this process, behind resizing and flipping.

    Its sample has `image` (3, H, W) uint8 in INPUT.FORMAT, and `instances` with `gt_boxes` (XYXY, absolute pixels of
    that image), `gt_classes` and, with masks, `gt_masks`. All draws must come from the generator, which is a function
    of seed and step: then a resumed run sees the same samples. Usable as a decorator, in a module of `--import`.
    """
    _transforms[f"{transform.__module__}.{transform.__qualname__}"] = transform
    return transform


def registered_transforms() -> tuple[Transform, ...]:
    """Return what was registered, in that order."""
    return tuple(_transforms.values())

"""Keypoints of objects: read from annotations in COCO's form, and moved with their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backbone.common.errors import DataError

from .view import View

# COCO's coordinates are indices of pixels; those of detectors are distances from the image's corner.
CENTRE = 0.5


def keypoint_names(categories: Sequence[dict[str, Any]], source: str) -> list[str]:
    """Return the names of an object's keypoints; categories without any are passed over.

    Raises:
        DataError: no category has some, or two have others.
    """
    lists = [category["keypoints"] for category in categories if category.get("keypoints")]
    if not lists:
        raise DataError(
            f"{source}: no category lists 'keypoints', the names of its points; set MODEL.KEYPOINT_ON False"
        )
    if any(names != lists[0] for names in lists):
        raise DataError(f"{source}: its categories have different keypoints; one head cannot learn them")
    return [str(name) for name in lists[0]]


def keypoint_rows(annotations: Sequence[dict[str, Any]], number: int) -> np.ndarray:
    """Return (N, K, 3) float32: x and y as in the file, and visibility; zeros for objects without keypoints."""
    none = [0] * (3 * number)
    rows = [annotation.get("keypoints") or none for annotation in annotations]
    return np.array(rows, dtype=np.float32).reshape(-1, number, 3)


def flip_partners(names: Sequence[str]) -> list[int]:
    """Return for each keypoint the place of what it is in a mirrored image: left and right change their names."""
    places = {name: place for place, name in enumerate(names)}
    swapped = {"left": "right", "right": "left"}
    partners = []
    for place, name in enumerate(names):
        word = next((word for word in swapped if word in name), "")
        partners.append(places.get(name.replace(word, swapped[word]), place) if word else place)
    return partners


def move_keypoints(keypoints: np.ndarray, view: View, partners: Sequence[int]) -> np.ndarray:
    """Return keypoints (N, K, 3), as `keypoint_rows` gives them, where a view shows them.

    As detectron2 does it: points outside become unlabelled, and unlabelled ones are zeros.

    Args:
        partners: see `flip_partners`.
    """
    moved = keypoints.astype(np.float64)
    moved[..., :2] = view.points(moved[..., :2] + CENTRE)
    outside = (moved[..., :2] < view.lower).any(-1) | (moved[..., :2] > view.upper).any(-1)
    moved[outside, 2] = 0
    if view.flip in ("horizontal", "both"):
        moved = moved[:, partners]
    moved[moved[..., 2] == 0] = 0
    return moved.astype(np.float32)

"""Segmentations of COCO records: polygons [[x0, y0, x1, y1, ...], ...] and run lengths {"size", "counts"}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from .records import Records

# pycocotools' rleToString: 6 bits a character from "0" on, and the last character of a number lacks the bit 32.
# Its decoder reads past the end of a text that is not of this form.
COMPRESSED = re.compile(rb"(?:[P-o]*[0-O])+")

Segmentation = dict[str, Any] | list[list[float]]
Size = tuple[int, int] | None


def check_segmentations(records: Records, indices: Sequence[int], sizes: Sequence[Size]) -> list[Segmentation]:
    """Return the segmentations of the records at `indices`; their form, and that run lengths fit the image, is checked.

    Args:
        sizes: (height, width) of the image of each of these records; None where the data does not say.

    Raises:
        DataError: missing, empty, malformed or made for another image size, or the image's size is not known.
    """
    polygons = []
    values = [records.rows[index].get("segmentation") for index in indices]
    for index, value, size in zip(indices, values, sizes):
        if not value:
            records.fail(index, "no 'segmentation'")
        if size is None:
            records.fail(index, "its image has no 'height' and 'width', which masks need")
        if isinstance(value, dict):
            _check_run_lengths(records, index, value, size)
        elif isinstance(value, list) and all(_is_polygon(polygon) for polygon in value):
            polygons.append((index, value))
        else:
            records.fail(index, "'segmentation' must be run lengths, or polygons of at least 3 points")
    _check_coordinates(records, polygons)
    return values


def to_run_lengths(segmentation: Segmentation, size: tuple[int, int]) -> dict[str, Any]:
    """Return a segmentation as pycocotools's compressed run lengths for an image of `size` (height, width)."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        return mask.merge(mask.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return mask.frPyObjects(segmentation, *size)
    return segmentation


def areas_and_boxes(run_lengths: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N,) and boxes [x, y, width, height] (N, 4) of compressed run lengths, float64."""
    from pycocotools import mask

    if not run_lengths:
        return np.zeros(0), np.zeros((0, 4))
    # pycocotools 2.0.11 counts the masks in 8 bits here, which numpy 2 refuses beyond 255.
    parts = [mask.area(run_lengths[start : start + 255]) for start in range(0, len(run_lengths), 255)]
    return np.concatenate(parts).astype(np.float64), mask.toBbox(run_lengths).astype(np.float64)


def _is_polygon(value: object) -> bool:
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0


def _check_coordinates(records: Records, polygons: list[tuple[int, list[list[float]]]]) -> None:
    flat = list(chain.from_iterable(chain.from_iterable(value) for _, value in polygons))
    if _all_finite(flat):
        return
    for index, value in polygons:
        if not _all_finite(list(chain.from_iterable(value))):
            records.fail(index, "'segmentation' has a polygon whose coordinates are not all finite numbers")


def _all_finite(values: list[Any]) -> bool:
    try:
        array = np.array(values, dtype=None if values else np.float64)
    except (ValueError, TypeError, OverflowError):
        return False
    return array.ndim == 1 and array.dtype.kind in "iuf" and bool(np.isfinite(array).all())


def _check_run_lengths(records: Records, index: int, value: dict[str, Any], size: tuple[int, int]) -> None:
    made_for, counts = value.get("size"), value.get("counts")
    if not isinstance(made_for, (list, tuple)) or tuple(made_for) != size:
        records.fail(index, f"its run lengths are for size {made_for}, and its image is {list(size)} [height, width]")
    if isinstance(counts, list):
        whole = all(type(number) is int and number >= 0 for number in counts)
        if not whole or sum(counts) != size[0] * size[1]:
            records.fail(index, f"the 'counts' of its segmentation do not add up to {size[0]} x {size[1]} pixels")
        return
    if isinstance(counts, str):
        counts = counts.encode("utf-8", "replace")
    if not isinstance(counts, bytes) or not COMPRESSED.fullmatch(counts):
        records.fail(index, "the 'counts' of its segmentation are not run lengths")

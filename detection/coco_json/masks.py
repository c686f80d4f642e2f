"""Segmentations of COCO records: polygons [[x0, y0, x1, y1, ...], ...] and run lengths {"size", "counts"}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from math import isfinite, nan
from typing import Any

import numpy as np

from .columns import number
from .records import Records

# pycocotools' rleToString: 6 bits a character from "0" on, and the last character of a number lacks the bit 32.
# Its decoder reads past the end of a text that is not of this form.
COMPRESSED = re.compile(rb"(?:[P-o]*[0-O])+")
MORE, SIGN, PAYLOAD, BITS = 32, 16, 31, 5
CHUNK = 4096  # masks that are looked at together
MOST_PIXELS = 2**62
LEAST_VALUES = 6  # of a polygon: x and y of three points

Segmentation = dict[str, Any] | list[list[float]]
Size = tuple[int, int] | None

PROBLEMS = {
    "bad-polygon": "'segmentation' has a polygon that is not an even number of finite numbers",
    "short-polygon": "'segmentation' must be run lengths, or polygons of at least 3 points",
}


def suspects(masks: Sequence[Any]) -> list[int]:
    """Return the indices of masks, other than empty ones, that are not at a glance lists of sound polygons."""
    polygons = [index for index, mask in enumerate(masks) if type(mask) is list and mask]
    others = [index for index, mask in enumerate(masks) if mask and type(mask) is not list]
    flat = list(chain.from_iterable(masks[index] for index in polygons))
    try:
        lengths = np.fromiter(map(len, flat), np.int64, len(flat))
        # A sum is finite only if all its terms are, and refuses texts: one pass in C for each polygon.
        totals = np.fromiter(map(sum, flat), np.float64, len(flat))
    except (TypeError, OverflowError):
        return sorted(polygons + others)
    suspicious = (lengths < LEAST_VALUES) | (lengths % 2 == 1) | ~np.isfinite(totals)
    owners = np.repeat(polygons, [len(masks[index]) for index in polygons]).astype(np.int64)
    return sorted({*owners[suspicious].tolist(), *others})


def mask_faults(mask: object, size: Sequence[float]) -> dict[str, str]:
    """Return the faults of one mask that is not empty, by kind: "bad-rle", "bad-polygon" or "short-polygon".

    Args:
        size: width and height of its image; NaN where unknown.

    Returns:
        For each kind a sentence.
    """
    if isinstance(mask, dict):
        problem = rle_problem(mask, size)
        return {"bad-rle": problem} if problem else {}
    if not isinstance(mask, list):
        return {"bad-polygon": PROBLEMS["short-polygon"]}
    return {kind: PROBLEMS[kind] for polygon in mask if (kind := polygon_fault(polygon))}


def polygon_fault(polygon: object) -> str | None:
    """Return "bad-polygon", "short-polygon" or None for one polygon [x0, y0, x1, y1, ...]."""
    if not isinstance(polygon, list) or len(polygon) % 2 == 1 or not all_finite(polygon):
        return "bad-polygon"
    return "short-polygon" if len(polygon) < LEAST_VALUES else None


def all_finite(values: Sequence[Any]) -> bool:
    """Whether all values are finite numbers."""
    return all((read := number(value)) is not None and isfinite(read) for value in values)


def rle_problem(mask: dict, size: Sequence[float]) -> str | None:
    """Say what is wrong with run lengths: malformed, or made for another image than one of `size` (width, height).

    What compressed ones add up to is left to `wrong_totals`, which takes many at once.
    """
    width, height = float(size[0]), float(size[1])
    written, counts = mask.get("size"), mask.get("counts")
    sides = list(written) if isinstance(written, (list, tuple)) else []
    if len(sides) != 2 or any(type(side) is not int or side <= 0 for side in sides):
        return f"its run lengths are for size {written!r:.60}, not for a height and a width"
    if isfinite(width) and isfinite(height) and sides != [height, width]:
        return f"its run lengths are for size {sides}, and its image is {[int(height), int(width)]} [height, width]"
    if isinstance(counts, list):
        whole = all(type(run) is int and run >= 0 for run in counts)
        return None if whole and sum(counts) == sides[0] * sides[1] else total_problem(mask)
    counts = counts.encode("utf-8", "replace") if isinstance(counts, str) else counts
    if not isinstance(counts, bytes) or COMPRESSED.fullmatch(counts) is None:
        return "the 'counts' of its segmentation are not run lengths"
    return None


def total_problem(mask: dict) -> str:
    """Say that run lengths do not cover their size."""
    return f"the 'counts' of its segmentation do not add up to {' x '.join(map(str, mask['size']))} pixels"


def compressed_totals(texts: Sequence[bytes]) -> np.ndarray:
    """Return the number of pixels (N,) that compressed run lengths, each of the form of COMPRESSED, add up to.

    From the fourth on, a number is the difference to the one two before: so it counts in every second one from its own.
    """
    codes = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes < MORE)
    lengths = np.diff(last, prepend=-1)
    digits = np.minimum(np.arange(len(codes)) - np.repeat(last - lengths + 1, lengths), 60 // BITS)
    values = np.add.reduceat((codes & PAYLOAD) << (BITS * digits), last - lengths + 1)
    values -= np.where(codes[last] & SIGN, np.int64(1) << np.minimum(BITS * lengths, 60), 0)
    # Where the numbers of each text end among all numbers.
    ends = np.searchsorted(last, np.cumsum([len(text) for text in texts]))
    numbers = np.diff(ends, prepend=0)
    places = np.arange(len(values)) - np.repeat(ends - numbers, numbers)
    weights = np.where(places == 0, 1, (np.repeat(numbers, numbers) - 1 - places) // 2 + 1)
    return np.add.reduceat(values * weights, ends - numbers)


def wrong_totals(masks: Sequence[Any]) -> list[int]:
    """Return the indices of compressed run lengths that do not cover their size; the others are `rle_problem`'s."""
    wrong = []
    for start in range(0, len(masks), CHUNK):
        places = [place for place in range(start, min(start + CHUNK, len(masks))) if _is_compressed(masks[place])]
        texts = [counts.encode() if isinstance(counts := masks[place]["counts"], str) else counts for place in places]
        sizes = [masks[place]["size"] for place in places]
        # A size may be any number; none above MOST_PIXELS is that of an image.
        pixels = np.array([min(height * width, MOST_PIXELS) for height, width in sizes], np.int64)
        if places:
            wrong += np.array(places)[compressed_totals(texts) != pixels].tolist()
    return wrong


def _is_compressed(mask: object) -> bool:
    return isinstance(mask, dict) and isinstance(mask.get("counts"), (str, bytes)) and not rle_problem(mask, (nan, nan))


def drawn(mask: object) -> object:
    """Return a mask without polygons of fewer than three points, as training takes it; None where nothing is left."""
    if isinstance(mask, list):
        mask = [polygon for polygon in mask if polygon_fault(polygon) != "short-polygon"]
    return mask or None


def polygon_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon x, y, x, y, ... by the shoelace formula."""
    x, y = np.array(polygon, np.float64).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def check_segmentations(
    records: Records, indices: Sequence[int], sizes: Sequence[Size], values: Sequence[Any] | None = None
) -> list[Segmentation]:
    """Return the segmentations of the records at `indices`; their form, and that run lengths fit the image, is checked.

    Args:
        sizes: (height, width) of the image of each of these records; None where the data does not say.
        values: the segmentations, in place of those of the records.

    Raises:
        DataError: missing, empty, malformed or made for another image size, or the image's size is not known.
    """
    values = [records.rows[index].get("segmentation") for index in indices] if values is None else list(values)
    for index, value, size in zip(indices, values, sizes):
        if not value:
            records.fail(index, "no 'segmentation'")
        if size is None:
            records.fail(index, "its image has no 'height' and 'width', which masks need")
    for place in suspects(values):
        height, width = sizes[place]
        for problem in mask_faults(values[place], (width, height)).values():
            records.fail(indices[place], problem)
    for place in wrong_totals(values):
        records.fail(indices[place], total_problem(values[place]))
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

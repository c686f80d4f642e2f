"""Segmentations (polygons and run lengths) and keypoints of annotations."""

from __future__ import annotations

import re
from itertools import chain
from math import isfinite

import numpy as np

from .columns import number
from .kinds import Findings, name_annotation, show
from .tables import Categories

# A compressed RLE holds 6-bit groups as the characters from "0"; the last of a number lacks the bit 32.
COMPRESSED = re.compile(r"(?:[P-o]*[0-O])+")


def check_segmentations(records: list[dict], sizes: np.ndarray, findings: Findings) -> None:
    """Note malformed polygons and run lengths; `sizes` (N, 2) are width and height of each annotation's image."""
    masks = [record.get("segmentation") for record in records]
    absent = [index for index, mask in enumerate(masks) if not mask]
    findings.add("missing-segmentation", absent, lambda index: name_annotation(records[index], index))
    faults: dict[str, list[int]] = {"bad-polygon": [], "short-polygon": [], "bad-rle": [], "crowd-polygons": []}
    for index in suspects(masks):
        for kind in mask_faults(masks[index], sizes[index]):
            faults[kind].append(index)
    faults["crowd-polygons"] = [
        index for index, mask in enumerate(masks) if type(mask) is list and mask and records[index].get("iscrowd") == 1
    ]
    for kind, places in faults.items():
        findings.add(kind, places, lambda index: _describe(records[index], index))


def _describe(record: dict, index: int) -> str:
    return f"{name_annotation(record, index)}: segmentation {show(record['segmentation'])}"


def suspects(masks: list) -> list[int]:
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
    suspicious = (lengths < 6) | (lengths % 2 == 1) | ~np.isfinite(totals)
    owners = np.repeat(polygons, [len(masks[index]) for index in polygons]).astype(np.int64)
    return sorted({*owners[suspicious].tolist(), *others})


def mask_faults(mask: object, size: np.ndarray | tuple[int, int]) -> set[str]:
    """Return the kinds of faults of one mask that is not empty, in an image of `size` (width, height; NaN unknown)."""
    if isinstance(mask, dict):
        return {"bad-rle"} if rle_fault(mask, size) else set()
    if not isinstance(mask, list):
        return {"bad-polygon"}
    return {fault for polygon in mask if (fault := polygon_fault(polygon))}


def polygon_fault(polygon: object) -> str | None:
    """Return "bad-polygon", "short-polygon" or None for one polygon [x0, y0, x1, y1, ...]."""
    if not isinstance(polygon, list) or len(polygon) % 2 == 1 or not _all_finite(polygon):
        return "bad-polygon"
    return "short-polygon" if len(polygon) < 6 else None


def _all_finite(values: list) -> bool:
    return all((read := number(value)) is not None and isfinite(read) for value in values)


def rle_fault(mask: dict, size: np.ndarray | tuple[int, int]) -> bool:
    """Whether run lengths are malformed, or made for an image of another size than `size` (width, height)."""
    width, height = float(size[0]), float(size[1])
    written, counts = mask.get("size"), mask.get("counts")
    if (
        not isinstance(written, list)
        or len(written) != 2
        or any(type(side) is not int or side <= 0 for side in written)
    ):
        return True
    if isfinite(width) and isfinite(height) and written != [height, width]:
        return True
    if isinstance(counts, list):
        whole = all(type(run) is int and run >= 0 for run in counts)
        return not whole or sum(counts) != written[0] * written[1]
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    return not isinstance(counts, str) or COMPRESSED.fullmatch(counts) is None


def check_keypoints(
    records: list[dict], category_places: np.ndarray, categories: Categories, findings: Findings
) -> None:
    """Note keypoints that are not x, y, visibility for each keypoint of the category."""
    if not categories.keypoints:
        return
    expected = np.array([categories.keypoints.get(int(id), 0) for id in categories.ids] + [0])[category_places]
    places = np.flatnonzero(expected).tolist()
    missing = [index for index in places if "keypoints" not in records[index]]
    findings.add("missing-keypoints", missing, lambda index: name_annotation(records[index], index))
    bad = [i for i in places if "keypoints" in records[i] and keypoints_fault(records[i]["keypoints"], expected[i])]

    def describe(index: int) -> str:
        values = records[index]["keypoints"]
        length = f"{len(values)} numbers" if isinstance(values, list) else show(values)
        return f"{name_annotation(records[index], index)}: {length} for {expected[index]} keypoints"

    findings.add("bad-keypoints", bad, describe)


def keypoints_fault(values: object, keypoints: int) -> bool:
    """Whether `values` is not a list of three finite numbers a keypoint."""
    return not isinstance(values, list) or len(values) != 3 * keypoints or not _all_finite(values)

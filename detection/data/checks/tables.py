"""Columns of ids, and what the checks of annotations look up by them: sizes of images, categories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...coco_json.columns import Integers, column, integers
from .kinds import NAMERS, Findings, show


def integer_column(records: list[dict], key: str, what: str, findings: Findings) -> Integers:
    """Read a column of integers; notes what is absent, no integer, or written with a fraction.

    Args:
        what: "image", "annotation" or "category".
    """
    values = integers(column(records, key))
    name = NAMERS[what]
    findings.add(f"missing-{what}-key", values.missing, lambda index: f"{name(records[index], index)}: no {key!r}")
    for kind, places in ((f"wrong-{what}-type", values.wrong), ("float-integer", values.floats)):
        findings.add(kind, places, lambda index: f"{name(records[index], index)}: {key} {show(records[index][key])}")
    return values


@dataclass(frozen=True)
class Images:
    """Ids and sizes of images.

    Attributes:
        ids: (N,) int64, sorted, each once.
        sizes: (N, 2) float64, width and height in pixels; NaN where the JSON has no usable size.
    """

    ids: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(ids: Integers, widths: Integers, heights: Integers) -> Images:
        """Build the table from the columns of the images; of a repeated id the first record counts."""
        usable = widths.valid & heights.valid & (widths.values > 0) & (heights.values > 0)
        sizes = np.stack([widths.values, heights.values], axis=1).astype(np.float64)
        sizes[~usable] = np.nan
        places = np.flatnonzero(ids.valid)
        known, first = np.unique(ids.values[places], return_index=True)
        return Images(known, sizes[places[first]])

    def sizes_of(self, places: np.ndarray) -> np.ndarray:
        """Return (M, 2) sizes for places that `find` gave; NaN for -1."""
        return np.concatenate([self.sizes, np.full((1, 2), np.nan)])[places]


@dataclass(frozen=True)
class Categories:
    """Ids of categories and the records they stand for.

    Attributes:
        ids: (N,) int64, sorted, each once.
        records: the first record of each id.
        keypoints: how many keypoints an object has, for categories with keypoints.
    """

    ids: np.ndarray
    records: list[dict]
    keypoints: dict[int, int]

    @staticmethod
    def of(ids: Integers, records: list[dict]) -> Categories:
        """Build the table; of a repeated id the first record counts."""
        places = np.flatnonzero(ids.valid)
        known, first = np.unique(ids.values[places], return_index=True)
        kept = [records[index] for index in places[first]]
        return Categories(known, kept, {int(id): n for id, record in zip(known, kept) if (n := keypoints_of(record))})


def keypoints_of(category: dict) -> int:
    """Return how many keypoints an object of this category has."""
    names = category.get("keypoints")
    return len(names) if isinstance(names, list) else 0


def find(ids: np.ndarray, wanted: Integers) -> np.ndarray:
    """Return the places (M,) of the wanted ids in sorted `ids`; -1 where an id is unknown or not valid."""
    if not len(ids):
        return np.full(len(wanted.values), -1)
    places = np.minimum(np.searchsorted(ids, wanted.values), len(ids) - 1)
    return np.where(wanted.valid & (ids[places] == wanted.values), places, -1)

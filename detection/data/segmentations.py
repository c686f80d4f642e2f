"""The masks of a set's objects in a few arrays: no Python object for each, and no JSON to parse for each sample."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from ..coco_json.masks import LEAST_VALUES
from .packed import Packed, chained, joined


class Segmentations:
    """Polygons, or run lengths, of N objects; some may have neither.

    Attributes:
        coordinates: (V,) float64 x, y, x, y, ... of all polygons in pixels of the file.
        polygons: (P + 1,) int64; polygon i is coordinates[polygons[i]:polygons[i + 1]].
        objects: (N + 1,) int64; object i has the polygons objects[i]:objects[i + 1].
        content, starts: of `Packed`: the run lengths of each object as JSON, empty where it has none.
    """

    def __init__(
        self,
        coordinates: np.ndarray,
        polygons: np.ndarray,
        objects: np.ndarray,
        content: np.ndarray,
        starts: np.ndarray,
    ) -> None:
        self.coordinates = coordinates
        self.polygons = polygons
        self.objects = objects
        self.content = content
        self.starts = starts

    @classmethod
    def of(cls, items: Iterable[Any]) -> Segmentations:
        """Pack COCO's `segmentation` of each object; polygons of fewer than three points are left out."""
        if isinstance(items, cls):
            return items
        coordinates, polygons, objects, texts = array("d"), array("q", [0]), array("q", [0]), []
        for item in items:
            run_lengths = isinstance(item, dict)
            texts.append(orjson.dumps(item) if run_lengths and item else b"")
            for polygon in () if run_lengths else item or ():
                if len(polygon) >= LEAST_VALUES:
                    coordinates.extend(polygon)
                    polygons.append(len(coordinates))
            objects.append(len(polygons) - 1)
        indices = (np.frombuffer(ends, np.int64) for ends in (polygons, objects))
        return cls(np.frombuffer(coordinates, np.float64), *indices, **vars(Packed.of(texts)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def between(self, start: int, end: int) -> list[Any]:
        """Return what the objects start:end have: a list of polygons, views of `coordinates`, or run lengths as in
        COCO's JSON; an empty list for neither."""
        objects = self.objects[start : end + 1]
        ends = self.polygons[objects[0] : objects[-1] + 1]
        coordinates = self.coordinates[ends[0] : ends[-1]]
        polygons = [coordinates[first:last] for first, last in pairwise((ends - ends[0]).tolist())]
        found: list[Any] = [polygons[first:last] for first, last in pairwise((objects - objects[0]).tolist())]
        if self.starts[end] > self.starts[start]:
            texts = Packed(self.content, self.starts)[start:end]
            found = [orjson.loads(text) if text else item for item, text in zip(found, texts)]
        return found

    def present(self) -> np.ndarray:
        """Return (N,) bool: which objects have a mask."""
        return (np.diff(self.objects) > 0) | (np.diff(self.starts) > 0)


def joined_segmentations(parts: Sequence[Segmentations]) -> Segmentations:
    """Return those of all parts in one."""
    return Segmentations(
        np.concatenate([part.coordinates for part in parts]),
        chained([part.polygons for part in parts]),
        chained([part.objects for part in parts]),
        **vars(joined([Packed(part.content, part.starts) for part in parts])),
    )

"""Predictions of all processes in the main one, sent as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from backbone.engine import distributed

from ..data.packed import PackedTexts

Records = list[dict[str, Any]]


def gather_records(found: list[tuple[int, Records]], image_ids: np.ndarray) -> Records:
    """Return the COCO results of all processes in the order of the set's images; in other processes than the main one
    an empty list. A collective call.

    Args:
        found: of this process: index of an image in the set, and its records.
        image_ids: of the set.
    """
    parts: Iterable[list[tuple[int, Records]]] = [found]
    if distributed.is_distributed():
        # Pickled as they are, the records of all processes would stand in memory twice.
        parts = (unpack(part, image_ids) for part in distributed.gather_to_main(pack(found)))
    by_image = sorted(chain.from_iterable(parts), key=lambda pair: pair[0])
    return [record for _, records in by_image for record in records]


def pack(found: list[tuple[int, Records]]) -> dict[str, Any]:
    """Return the records as arrays, a row a record; `indices` and `counts` have a row an image."""
    records = [record for _, of_image in found for record in of_image]
    packed = {
        "indices": np.array([index for index, _ in found], np.int64),
        "counts": np.array([len(of_image) for _, of_image in found], np.int64),
        "categories": np.array([record["category_id"] for record in records], np.int64),
        "boxes": np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4),
        "scores": np.array([record["score"] for record in records], np.float64),
    }
    if records and "segmentation" in records[0]:
        masks = [record["segmentation"] for record in records]
        packed["sizes"] = np.array([mask["size"] for mask in masks], np.int64)
        packed["masks"] = PackedTexts.of(mask["counts"] for mask in masks)
    if records and "keypoints" in records[0]:
        packed["keypoints"] = np.array([record["keypoints"] for record in records], np.float64)
    return packed


def unpack(packed: dict[str, Any], image_ids: np.ndarray) -> list[tuple[int, Records]]:
    """Return what `pack` was given."""
    columns = (packed[name].tolist() for name in ("categories", "boxes", "scores"))
    records = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for image_id, category, box, score in zip(
            np.repeat(image_ids[packed["indices"]], packed["counts"]).tolist(), *columns
        )
    ]
    if "masks" in packed:
        for record, size, counts in zip(records, packed["sizes"].tolist(), packed["masks"]):
            record["segmentation"] = {"size": size, "counts": counts}
    if "keypoints" in packed:
        for record, values in zip(records, packed["keypoints"].tolist()):
            record["keypoints"] = values
    of_image = iter(records)
    counts = zip(packed["indices"].tolist(), packed["counts"].tolist())
    return [(index, [next(of_image) for _ in range(number)]) for index, number in counts]

"""Mends annotations: references, boxes, masks, areas and flags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from math import isfinite

import numpy as np

from ...coco_json.columns import four_numbers, number, numbers
from ...coco_json.masks import (
    areas_and_boxes,
    mask_faults,
    polygon_area,
    polygon_fault,
    suspects,
    to_run_lengths,
    wrong_totals,
)
from .annotations import AREA_SLACK, areas_differ, look_like_corners, look_normalised, stand_out
from .ids import fresh_ids, to_integer
from .masks import keypoints_fault

Resolve = Callable[[object], int | None]


def mend_annotations(
    records: list[dict],
    resolve_image: Resolve,
    resolve_category: Resolve,
    sizes: dict[int, tuple[int, int]],
    keypoints: dict[int, int],
    actions: Counter[str],
) -> list[dict]:
    """Mend annotation records in place and return those that are kept.

    Args:
        resolve_image, resolve_category: give the id that a reference means, None for an unknown one.
        sizes: (width, height) in pixels by image id.
        keypoints: how many keypoints an object has, by category id.
        actions: counts what is done.
    """
    kept = _mend_references(records, "image_id", resolve_image, actions)
    kept = _mend_references(kept, "category_id", resolve_category, actions)
    masks = [record.get("segmentation") for record in kept]
    for index in suspects(masks):
        _mend_mask(kept[index], sizes[kept[index]["image_id"]], actions)
    before = None
    while before != len(kept):
        # What is dropped may have hidden what the other boxes have in common: corners, or shares of the image.
        before = len(kept)
        kept = _mend_boxes(kept, sizes, actions)
    _mend_areas(kept, actions)
    for record in kept:
        _mend_flag(record, actions)
        _mend_keypoints(record, keypoints[record["category_id"]], actions)
    _mend_ids(kept, actions)
    return kept


def _mend_references(records: Iterable[dict], key: str, resolve: Resolve, actions: Counter[str]) -> list[dict]:
    kept = []
    for record in records:
        id = resolve(record.get(key))
        if id is None:
            actions[f"annotations dropped: {key} unknown"] += 1
            continue
        if type(record[key]) is not int or record[key] != id:
            record[key] = id
            actions[f"annotations: {key} corrected"] += 1
        kept.append(record)
    return kept


def _mend_boxes(records: Iterable[dict], sizes: dict[int, tuple[int, int]], actions: Counter[str]) -> list[dict]:
    kept = []
    for record in records:
        box, action = _read_box(record.get("bbox")), "annotations: bbox made numbers"
        if box is None:
            box, action = _mask_box(record.get("segmentation")), "annotations: bbox taken from the mask"
        if box is None:
            actions["annotations dropped: bbox is not four finite numbers, and there is no mask"] += 1
            continue
        if box is not record.get("bbox"):
            record["bbox"] = box
            actions[action] += 1
        kept.append(record)
    _convert_shares(kept, sizes, actions)
    _convert_corners(kept, sizes, actions)
    outside, partly = stand_out(*_box_arrays(kept, sizes))
    return [record for place, record in enumerate(kept) if _fit(record, outside[place], partly[place], sizes, actions)]


def _box_arrays(records: list[dict], sizes: dict[int, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (N, 4) and the sizes of their images (N, 2)."""
    boxes = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    return boxes, np.array([sizes[record["image_id"]] for record in records], np.float64).reshape(-1, 2)


def _read_box(value: object) -> list | None:
    """Return the box itself if it is four finite numbers, a new one if its texts can be read so, else None."""
    read = four_numbers(value)
    if read is None and isinstance(value, (list, tuple)):
        value = [_to_number(part) for part in value]
        read = four_numbers(value)
    return value if read is not None and all(map(isfinite, read)) else None


def _mask_box(mask: object) -> list[float] | None:
    """Return the box around a sound mask, None where there is no mask."""
    if not mask:
        return None
    if isinstance(mask, dict):
        box = areas_and_boxes([to_run_lengths(mask, tuple(mask["size"]))])[1][0].tolist()
    else:
        x, y = (np.concatenate([polygon[side::2] for polygon in mask]) for side in (0, 1))
        box = [float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))]
    return box


def _to_number(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return None


def _convert_shares(records: list[dict], sizes: dict[int, tuple[int, int]], actions: Counter[str]) -> None:
    boxes, image_sizes = _box_arrays(records, sizes)
    sound = (boxes[:, 2:] > 0).all(axis=1)
    if not look_normalised(boxes[sound], image_sizes[sound]):
        return
    for record, box in zip(records, (boxes * np.tile(image_sizes, 2)).tolist()):
        record["bbox"] = box
    actions["annotations: bbox in shares of the image multiplied by its width and height"] += len(records)


def _convert_corners(records: list[dict], sizes: dict[int, tuple[int, int]], actions: Counter[str]) -> None:
    boxes, image_sizes = _box_arrays(records, sizes)
    sound = (boxes[:, 2:] > 0).all(axis=1)
    if not look_like_corners(boxes[sound], image_sizes[sound]):
        return
    for record in records:
        left, top, right, bottom = record["bbox"]
        record["bbox"] = [left, top, right - left, bottom - top]
    actions["annotations: bbox converted from corners to [x, y, width, height]"] += len(records)


def _fit(record: dict, outside: bool, partly: bool, sizes: dict[int, tuple[int, int]], actions: Counter[str]) -> bool:
    """Clip a box that stands partly out of its image; False means that the annotation is to be dropped."""
    x, y, width, height = record["bbox"]
    if width <= 0 or height <= 0:
        actions["annotations dropped: bbox without area"] += 1
        return False
    if outside:
        actions["annotations dropped: bbox outside the image"] += 1
        return False
    if partly:
        right, bottom = sizes[record["image_id"]]
        left, top = max(x, 0), max(y, 0)
        record["bbox"] = [left, top, min(x + width, right) - left, min(y + height, bottom) - top]
        actions["annotations: bbox clipped to the image"] += 1
    return True


def _mend_mask(record: dict, size: tuple[int, int], actions: Counter[str]) -> None:
    mask = record["segmentation"]
    if not mask_faults(mask, size) and not wrong_totals([mask]):
        return
    if isinstance(mask, list) and (shaped := _as_polygons(mask)) != mask:
        mask = shaped
        actions["annotations: polygon written as [[x, y, x, y, ...]]"] += 1
    sound = [polygon for polygon in mask if polygon_fault(polygon) is None] if isinstance(mask, list) else []
    if sound:
        record["segmentation"] = sound
        if len(sound) < len(mask):
            actions["annotations: malformed polygons dropped"] += 1
    else:
        del record["segmentation"]
        actions["annotations: segmentation dropped"] += 1


def _as_polygons(mask: list) -> list:
    """Return [[x, y, ...], ...] of the forms [x, y, ...], [[x, y], ...] and [[[x, y], ...], ...]."""
    if all(number(value) is not None for value in mask):
        return [mask]
    if len(mask) > 2 and all(map(_is_point, mask)):
        return [list(chain.from_iterable(mask))]
    return [
        list(chain.from_iterable(polygon)) if isinstance(polygon, list) and all(map(_is_point, polygon)) else polygon
        for polygon in mask
    ]


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(number(part) is not None for part in value)


def _mend_areas(records: list[dict], actions: Counter[str]) -> None:
    areas = numbers([record.get("area") for record in records])
    extents = np.array([record["bbox"][2:] for record in records], np.float64).reshape(-1, 2)
    masked = np.array([bool(record.get("segmentation")) for record in records], bool)
    with np.errstate(over="ignore", invalid="ignore"):
        usable = np.isfinite(areas) & (areas > 0) & ~areas_differ(areas, extents.prod(axis=1), masked)
    for place in np.flatnonzero(~usable):
        record = records[place]
        width, height = record["bbox"][2:]
        record["area"] = _mask_area(record.get("segmentation"), width * height)
        actions["annotations: area taken from the mask or the box"] += 1


def _mask_area(mask: object, box_area: float) -> float:
    """Return the area of a sound mask; the box's when there is none or it does not fit the box."""
    area = 0.0
    if isinstance(mask, list):
        area = sum(map(polygon_area, mask))
    elif mask and isinstance(mask["counts"], list):
        area = sum(mask["counts"][1::2])
    return area if 0 < area <= box_area + AREA_SLACK else box_area


def _mend_flag(record: dict, actions: Counter[str]) -> None:
    value = record.get("iscrowd")
    if type(value) is int and value in (0, 1):
        return
    record["iscrowd"] = 1 if value in (True, 1.0, "1", "true", "True") else 0
    actions["annotations: iscrowd written"] += 1


def _mend_keypoints(record: dict, keypoints: int, actions: Counter[str]) -> None:
    if keypoints and "keypoints" in record and keypoints_fault(record["keypoints"], keypoints):
        record["keypoints"] = [0] * (3 * keypoints)
        record["num_keypoints"] = 0
        actions["annotations: keypoints blanked"] += 1


def _mend_ids(records: list[dict], actions: Counter[str]) -> None:
    ids = [to_integer(record.get("id")) for record in records]
    fresh = fresh_ids({id for id in ids if id is not None})
    seen: set[int] = {0}
    for record, id in zip(records, ids):
        if id is None or id in seen:
            id = next(fresh)
        seen.add(id)
        if type(record.get("id")) is not int or record["id"] != id:
            record["id"] = id
            actions["annotations: id given or made an integer"] += 1

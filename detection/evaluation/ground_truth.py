"""Ground truth in COCO form, checked and laid out in columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbone.common.errors import DataError

from ..coco_json.masks import Segmentation, Size, areas_and_boxes, check_segmentations, drawn, to_run_lengths
from ..coco_json.records import MEND, Records, is_absent, no_collection, read_source, refuse_repeated_ids, unique_ids

KEYPOINTS = 17
"""Keypoints of a COCO person; the widths of pycocotools's object keypoint similarity are theirs."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Ground truth for one kind of evaluation.

    Images and categories are sorted by id; the columns of the N annotations are in the file's order and hold positions
    in the sorted lists, so ids may be texts, zero or have gaps.

    Attributes:
        source: the file, for messages.
        image_ids: as in the file.
        image_sizes: (height, width), or None where the file does not say.
        category_ids: as in the file.
        class_names: one a category, unique.
        image, category: (N,) int64 positions.
        boxes: (N, 4) float64 [x, y, width, height] in absolute pixels.
        areas: (N,) float64, pixels.
        crowd: (N,) bool.
        segmentations: for "segm", polygons or run lengths.
        without_mask: for "segm", how many annotations have no mask; what is found in their boxes is not judged.
        keypoints: for "keypoints", (N, 3 * K) float64: x, y, visibility. K is the number of names that the categories
            have; COCO's 17 where they have none.
        sigmas: for "keypoints", the width of each; () for COCO's.
        labelled_keypoints: for "keypoints", (N,) int64; an annotation with none is ignored.
    """

    source: str
    iou_type: str
    image_ids: list[Any]
    image_sizes: list[Size]
    category_ids: list[Any]
    class_names: list[str]
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    segmentations: list[Segmentation] | None = None
    without_mask: int = 0
    keypoints: np.ndarray | None = None
    labelled_keypoints: np.ndarray | None = None
    sigmas: tuple[float, ...] = ()


@no_collection()
def load_ground_truth(
    source: str | Path | dict[str, Any], iou_type: str = "bbox", sigmas: Sequence[float] = ()
) -> GroundTruth:
    """Read and check ground truth. The given dict stays as it is.

    What is missing is filled: iscrowd with 0; the area from the mask, or from the box where there is no mask; the box
    from the mask; num_keypoints from the visibilities. Annotation ids may be missing, and 0 is an id like any other
    (pycocotools takes it for "no match"). For "segm", an annotation without a mask among others with one is a region to
    ignore, its box as if it were a crowd: nobody knows whether a mask there is right.

    Args:
        source: a COCO JSON file, or what it holds.
        iou_type: "bbox", "segm" or "keypoints": what must be there.
        sigmas: for "keypoints", the width of each for object keypoint similarity; by default COCO's of 17.

    Raises:
        DataError: the file cannot be read, has another form, or a value is missing or wrong; the message names the
            record and says how to mend it.
    """
    data, name = read_source(source, "ground truth")
    _check_form(data, name)
    images, sizes = _images(Records(data["images"], name, "images"))
    categories, class_names = _categories(Records(data["categories"], name, "categories"))
    annotations = Records(data["annotations"], name, "annotations")
    refuse_repeated_ids(annotations, annotations.column("id"))
    image = annotations.positions("image_id", {key: i for i, key in enumerate(images)}, f"the images of {name}")
    category = annotations.positions(
        "category_id", {key: i for i, key in enumerate(categories)}, f"the categories of {name}"
    )
    sizes_of = [sizes[position] for position in image.tolist()]
    boxes, areas = _boxes_and_areas(annotations, sizes_of)
    crowd = _crowd(annotations)
    columns: dict[str, Any] = {"sigmas": tuple(sigmas)}
    if iou_type == "segm":
        columns["segmentations"], without = _segmentations(annotations, boxes, sizes_of)
        columns["without_mask"] = int(without.sum())
        crowd = crowd | without
    if iou_type == "keypoints":
        number = _number_of_keypoints(data["categories"], name, columns["sigmas"])
        columns["keypoints"], columns["labelled_keypoints"] = _keypoints(annotations, number)
    return GroundTruth(
        source=name,
        iou_type=iou_type,
        image_ids=images,
        image_sizes=sizes,
        category_ids=categories,
        class_names=class_names,
        image=image,
        category=category,
        boxes=boxes,
        areas=areas,
        crowd=crowd,
        **columns,
    )


def _check_form(data: object, name: str) -> None:
    if isinstance(data, list):
        raise DataError(f"{name}: holds a list, which looks like predictions; give the ground truth here")
    if not isinstance(data, dict):
        raise DataError(f"{name}: holds a {type(data).__name__}, not an object with images, annotations, categories")
    for key in ("images", "annotations", "categories"):
        if key not in data:
            hint = "; the lists of test images have none and cannot be evaluated" if key == "annotations" else ""
            raise DataError(f"{name}: no {key!r}{hint or f'; add it, as the COCO format has it ({MEND})'}")


def _images(records: Records) -> tuple[list[Any], list[Size]]:
    ids = unique_ids(records)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    sizes = [_size(records, index) for index in range(len(ids))]
    return [ids[i] for i in order], [sizes[i] for i in order]


def _size(records: Records, index: int) -> Size:
    height, width = (records.rows[index].get(key) for key in ("height", "width"))
    if height is None or width is None:
        return None
    try:
        size = int(height), int(width)
    except (TypeError, ValueError, OverflowError):
        size = (0, 0)
    if min(size) < 1 or isinstance(height, str) or isinstance(width, str):
        records.fail(index, f"'height' {height!r} and 'width' {width!r} must be positive integers")
    return size


def _categories(records: Records) -> tuple[list[Any], list[str]]:
    ids = unique_ids(records)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = [str(records.rows[i].get("name", ids[i])) for i in order]
    often = Counter(names)
    unique = [name if often[name] == 1 else f"{name} (id {ids[i]})" for name, i in zip(names, order)]
    return [ids[i] for i in order], unique


def _crowd(records: Records) -> np.ndarray:
    values = [0 if value is None else value for value in records.column("iscrowd")]
    for index, value in enumerate(values):
        if value not in (0, 1):
            records.fail(index, f"'iscrowd' must be 0 or 1, not {value!r}")
    return np.array(values, dtype=bool)


def _boxes_and_areas(records: Records, sizes: list[Size]) -> tuple[np.ndarray, np.ndarray]:
    boxes = [None if is_absent(value) else value for value in records.column("bbox")]
    areas = records.column("area")
    _fill_from_masks(records, sizes, boxes, areas)
    for index, box in enumerate(boxes):
        if box is None:
            records.fail(index, "no 'bbox'")
    checked = records.boxes(values=boxes)
    areas = [float(box[2] * box[3]) if area is None else area for box, area in zip(checked, areas)]
    return checked, records.numbers("area", values=areas)


def _fill_from_masks(records: Records, sizes: list[Size], boxes: list[Any], areas: list[Any]) -> None:
    """Put boxes and areas of masks where there are none."""
    incomplete = (index for index in range(len(records)) if boxes[index] is None or areas[index] is None)
    masks = {index: mask for index in incomplete if (mask := _mask(records, index)) and sizes[index] is not None}
    chosen = list(masks)
    masks = check_segmentations(records, chosen, [sizes[index] for index in chosen], list(masks.values()))
    mask_areas, mask_boxes = areas_and_boxes([to_run_lengths(mask, sizes[i]) for i, mask in zip(chosen, masks)])
    for index, area, box in zip(chosen, mask_areas.tolist(), mask_boxes.tolist()):
        areas[index] = area if areas[index] is None else areas[index]
        boxes[index] = box if boxes[index] is None else boxes[index]


def _mask(records: Records, index: int) -> Any:
    """Return an annotation's mask, None where it has none: [] and polygons of two points hold nothing."""
    mask = records.rows[index].get("segmentation")
    return drawn(mask) if isinstance(mask, list) else mask or None


def _segmentations(records: Records, boxes: np.ndarray, sizes: list[Size]) -> tuple[list[Segmentation], np.ndarray]:
    """Return the masks, and which annotations (N,) have none: their box stands for it, as a region to ignore."""
    masks = [_mask(records, index) for index in range(len(records))]
    without = np.array([mask is None for mask in masks], dtype=bool)
    if without.all() and len(records):
        records.fail(0, "no 'segmentation', as in all the others", "masks need some; evaluate the boxes alone")
    for index in np.flatnonzero(without):
        x, y, width, height = boxes[index].tolist()
        masks[index] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    return check_segmentations(records, range(len(records)), sizes, masks), without


def _number_of_keypoints(categories: list[dict[str, Any]], name: str, sigmas: tuple[float, ...]) -> int:
    numbers = {len(names) for category in categories if isinstance(names := category.get("keypoints"), list) and names}
    if len(numbers) > 1:
        raise DataError(f"{name}: its categories have different numbers of keypoints: {sorted(numbers)}")
    number = numbers.pop() if numbers else len(sigmas) or KEYPOINTS
    if number != (len(sigmas) or KEYPOINTS):
        raise DataError(
            f"{name}: an object has {number} keypoints, but {len(sigmas) or KEYPOINTS} widths of object keypoint "
            "similarity are known; give one for each"
        )
    return number


def _keypoints(records: Records, number: int) -> tuple[np.ndarray, np.ndarray]:
    values = records.column("keypoints")
    if values and all(value is None for value in values):
        raise DataError(f"{records.source}: no annotation has 'keypoints'; give ground truth of keypoints")
    none = [0] * (3 * number)
    keypoints = records.numbers("keypoints", 3 * number, [none if value is None else value for value in values])
    visible = (keypoints[:, 2::3] > 0).sum(axis=1).tolist()
    labelled = [
        count if value is None or keys is None else value
        for value, keys, count in zip(records.column("num_keypoints"), values, visible)
    ]
    return keypoints, records.numbers("num_keypoints", values=labelled).astype(np.int64)

"""Data sets of detectron2's DatasetCatalog as ours, and ours in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from backbone.common.errors import DataError

from .sets import DetectionSet

Record = dict[str, Any]


def is_registered(name: str) -> bool:
    """Whether detectron2's DatasetCatalog has a set of this name."""
    return name in DatasetCatalog


def read_registered(name: str) -> tuple[dict[str, Any], Path]:
    """Return a set of detectron2's DatasetCatalog in COCO's form, and the folder of its images.

    Category ids are those that its metadata maps from (`thing_dataset_id_to_contiguous_id`), else the class indices.

    Raises:
        DataError: its function fails, the metadata names no classes, or a record lacks something.
    """
    try:
        records = DatasetCatalog.get(name)
    except Exception as error:
        raise DataError(f"{name}: its function in the DatasetCatalog fails: {type(error).__name__}: {error}") from None
    metadata = MetadataCatalog.get(name)
    names = list(metadata.get("thing_classes") or [])
    if not names:
        raise DataError(f"{name}: has no class names; set MetadataCatalog.get({name!r}).thing_classes")
    known = metadata.get("thing_dataset_id_to_contiguous_id") or {index: index for index in range(len(names))}
    ids = {index: number for number, index in known.items()}
    numbers = [record.get("image_id") for record in records]
    if len(set(numbers)) < len(numbers) or not all(type(number) is int for number in numbers):
        numbers = list(range(1, len(records) + 1))
    try:
        paths = [os.path.abspath(record["file_name"]) for record in records]
        folder = Path(os.path.commonpath([os.path.dirname(path) for path in paths])) if paths else Path()
        images = [
            {"id": number, "file_name": os.path.relpath(path, folder), "width": row["width"], "height": row["height"]}
            for number, path, row in zip(numbers, paths, records)
        ]
        found = [(number, item) for number, row in zip(numbers, records) for item in row.get("annotations", [])]
        annotations = [
            {"id": at, "image_id": number, **_to_coco(item, ids)} for at, (number, item) in enumerate(found, 1)
        ]
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{name}: a record is not as detectron2 has them: {what}") from None
    categories = [{"id": ids[index], "name": str(label)} for index, label in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}, folder


def _to_coco(item: Record, ids: dict[int, int]) -> Record:
    box = BoxMode.convert(list(map(float, item["bbox"])), BoxMode(item["bbox_mode"]), BoxMode.XYWH_ABS)
    found = {"category_id": ids[item["category_id"]], "bbox": list(box), "iscrowd": int(item.get("iscrowd", 0))}
    found["area"] = box[2] * box[3]
    if "segmentation" in item:
        shape = item["segmentation"]
        if isinstance(shape, dict) and isinstance(shape.get("counts"), bytes):
            shape = {**shape, "counts": shape["counts"].decode("ascii")}
        found["segmentation"] = shape
    return found


def register_sets(names: Iterable[str], load: Callable[[str], tuple[DetectionSet, Record]]) -> None:
    """Put sets of ours into the DatasetCatalog, where it has none of the name; each is read when it is asked for.

    Args:
        load: returns a set by its name, and what its metadata holds beside the classes.
    """

    def enter(name: str) -> None:
        def records() -> list[Record]:
            images, about = load(name)
            ids = {number: index for index, number in enumerate(images.category_ids)}
            metadata = MetadataCatalog.get(name)
            metadata.set(thing_classes=list(images.classes), thing_dataset_id_to_contiguous_id=ids, **about)
            return records_of(images)

        DatasetCatalog.register(name, records)

    for name in names:
        if name not in DatasetCatalog:
            enter(name)


def records_of(images: DetectionSet) -> list[Record]:
    """Return a set as detectron2's list of dicts: absolute XYXY boxes, class indices, segmentations as in COCO."""
    found = []
    for index in range(len(images)):
        width, height = images.size(index)
        annotations = []
        start, end = images.starts[index : index + 2]
        masks = images.segmentations.between(start, end) if images.segmentations is not None else []
        for row, mask in zip_longest(range(start, end), masks):
            item = {"bbox": images.boxes[row].tolist(), "bbox_mode": BoxMode.XYXY_ABS}
            item |= {"category_id": int(images.labels[row]), "iscrowd": int(images.crowd[row])}
            if mask:
                item["segmentation"] = mask if isinstance(mask, dict) else [polygon.tolist() for polygon in mask]
            annotations.append(item)
        about = {"file_name": str(images.path(index)), "image_id": images.image_ids[index].item()}
        found.append({**about, "height": height, "width": width, "annotations": annotations})
    return found

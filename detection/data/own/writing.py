"""Writes records in COCO's form as COCO, YOLO or PASCAL VOC, images beside them, as `read_place` reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import yaml

from backbone.common.errors import DataError
from backbone.common.files import writing
from backbone.common.own_data import PARTS
from backbone.common.waiting import passing

from ...coco_json.files import write_json
from ..sets import real_categories
from .reading import OwnData
from .records import DECIMALS

# Shares of an image keep DECIMALS of a pixel in images of 100,000 pixels.
SHARE = ".12f"


def write_parts(parts: Mapping[str, OwnData], form: str, output: Path) -> dict[str, int]:
    """Write the parts of a data set, which have passed the checks, into a new folder.

    Args:
        parts: by "train", "val" or "test"; their classes are the same.
        form: a key of WRITERS.

    Returns:
        How many images, objects, and objects that the form cannot express were written or left out.

    Raises:
        DataError: the folder is not empty, the parts differ in their classes, or two files would have one name.
        RunError: it cannot be written.
    """
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise DataError(f"{output} is there already, and is not empty; give a new folder")
    classes = {part: _classes(own.data) for part, own in parts.items()}
    first, *others = classes
    for part in others:
        if list(classes[part].values()) != list(classes[first].values()):
            raise DataError(f"the classes of {part} and {first} differ; give both in the same order")
    told = {"images": 0, "objects": 0, "left out": 0}
    partial = output.with_name(f"{output.name}.partial")
    with writing(output):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            for part, own in parts.items():
                WRITERS[form](own, part, classes[part], partial, told)
            if form == "yolo":
                _write_data_yaml(partial, parts, list(classes[first].values()))
            if output.is_dir():
                output.rmdir()
            os.replace(partial, output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return told


def _classes(data: dict[str, Any]) -> dict[int, str]:
    return {item["id"]: item["name"] for item in sorted(real_categories(data), key=lambda item: item["id"])}


def _objects(data: dict[str, Any]) -> dict[int, list[tuple[dict[str, Any], tuple[float, float, float, float]]]]:
    """Return the records of each image with their XYXY corners, cut to the image."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    objects: dict[int, list] = {image: [] for image in sizes}
    for record in data["annotations"]:
        x, y, width, height = record["bbox"]
        across, down = sizes[record["image_id"]]
        corners = (max(x, 0), max(y, 0), min(x + width, across), min(y + height, down))
        if corners[2] > corners[0] and corners[3] > corners[1]:
            objects[record["image_id"]].append((record, tuple(round(value, DECIMALS) for value in corners)))
    return objects


def _copy(own: OwnData, image: dict[str, Any], target: Path) -> None:
    if target.exists():
        raise DataError(f"{own.folder}: two images would be {target.name}; give them names that differ")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(own.folder / image["file_name"], target)


def _write_coco(own: OwnData, part: str, classes: dict[int, str], output: Path, told: dict[str, int]) -> None:
    for image in passing(own.data["images"], f"writing {part}", unit="img", plural="images"):
        _copy(own, image, output / part / image["file_name"])
    told["images"] += len(own.data["images"])
    told["objects"] += len(own.data["annotations"])
    file = output / "annotations" / f"instances_{part}.json"
    file.parent.mkdir(exist_ok=True)
    write_json(own.data, file)


def _write_yolo(own: OwnData, part: str, classes: dict[int, str], output: Path, told: dict[str, int]) -> None:
    labels = {id_: label for label, id_ in enumerate(classes)}
    objects = _objects(own.data)
    for image in passing(own.data["images"], f"writing {part}", unit="img", plural="images"):
        name = PurePosixPath(image["file_name"])
        _copy(own, image, output / "images" / part / name)
        label_file = output / "labels" / part / name.with_suffix(".txt")
        if label_file.exists():
            raise DataError(f"{own.folder}: two images would have the labels {label_file.name}; rename one")
        lines = []
        for record, (x0, y0, x1, y1) in objects[image["id"]]:
            if record.get("iscrowd"):
                told["left out"] += 1
                continue
            width, height = image["width"], image["height"]
            box = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(" ".join([str(labels[record["category_id"]]), *(format(value, SHARE) for value in box)]))
        label_file.parent.mkdir(parents=True, exist_ok=True)
        label_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        told["images"] += 1
        told["objects"] += len(lines)


def _write_data_yaml(output: Path, parts: Mapping[str, OwnData], classes: list[str]) -> None:
    content = {part: f"images/{part}" for part in PARTS if part in parts}
    text = yaml.safe_dump({**content, "nc": len(classes), "names": classes}, sort_keys=False, allow_unicode=True)
    (output / "data.yaml").write_text(text, encoding="utf-8")


def _write_voc(own: OwnData, part: str, classes: dict[int, str], output: Path, told: dict[str, int]) -> None:
    objects, ids = _objects(own.data), []
    for image in passing(own.data["images"], f"writing {part}", unit="img", plural="images"):
        # An id is no path.
        name = image["file_name"].replace("/", "_")
        stem = PurePosixPath(name).stem
        file = output / "Annotations" / f"{stem}.xml"
        _copy(own, image, output / "JPEGImages" / name)
        if file.exists():
            raise DataError(f"{own.folder}: two images would have the annotations {file.name}; rename one")
        root = ElementTree.Element("annotation")
        _add(root, {"filename": name})
        _add(ElementTree.SubElement(root, "size"), {"width": image["width"], "height": image["height"], "depth": 3})
        for record, (x0, y0, x1, y1) in objects[image["id"]]:
            item = ElementTree.SubElement(root, "object")
            _add(item, {"name": classes[record["category_id"]], "difficult": int(bool(record.get("iscrowd")))})
            # Pixels are counted from 1, and the last one is included.
            corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
            _add(ElementTree.SubElement(item, "bndbox"), {key: _short(value) for key, value in corners.items()})
            told["objects"] += 1
        file.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.indent(root)
        file.write_text(ElementTree.tostring(root, encoding="unicode") + "\n", encoding="utf-8")
        ids.append(stem)
    told["images"] += len(ids)
    lists = output / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")


def _add(parent: ElementTree.Element, values: dict[str, object]) -> None:
    for key, value in values.items():
        ElementTree.SubElement(parent, key).text = str(value)


def _short(value: float) -> str:
    value = round(value, DECIMALS)
    return str(int(value)) if value == int(value) else repr(value)


WRITERS: dict[str, Callable[..., None]] = {"coco": _write_coco, "yolo": _write_yolo, "voc": _write_voc}

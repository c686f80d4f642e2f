"""Detections on a PASCAL VOC split: read from the evaluation server's files or COCO results, written as the former."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backbone.common.errors import DataError
from backbone.common.files import write_text
from backbone.common.reading import read_text
from backbone.common.text import count, nearest

from ..coco_json.records import Records, read_source
from ..data.voc import VOC_CLASSES
from .predictions import MEND

# Competition 4 of the server: detection, trained on any data; 3 is on VOC's alone.
PREFIXES = ("comp4_det_", "comp3_det_")
COLUMNS = ("image id", "score", "xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class VocDetections:
    """N detections; those of a class in the order in which they were given.

    Attributes:
        image: (N,) int64, positions in the split's list.
        labels: (N,) int64, positions in the split's classes.
        scores: (N,) float64.
        boxes: (N, 4) float64 xmin, ymin, xmax, ymax: pixels counted from 1, the last one included.
        without_file: classes that a folder of files has none for; they count as never detected.
    """

    image: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    without_file: tuple[str, ...] = ()


def load_detections(
    source: str | Path | list[dict[str, Any]],
    ids: Sequence[str],
    split: str,
    classes: Sequence[str] = VOC_CLASSES,
) -> VocDetections:
    """Read detections of the images `ids`.

    Args:
        source: a folder with comp4_det_<split>_<class>.txt (or comp3), each line an id, a score and a 1-based box; or a
            JSON file in COCO's results form, or its list. There, image_id is the file's id ("2007_000039"), or the
            number of its digits (2007000039; 5 for "000005"); category_id counts `classes` from 1; bbox is
            [x, y, width, height] from 0.
        split: names the files of a folder.

    Raises:
        DataError: there are no such files, or a line or record is malformed or of another split.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            return _from_folder(path, ids, split)
        if path.suffix == ".txt":
            raise DataError(f"{path}: is the file of one class; give the folder that holds comp4_det_{split}_*.txt")
        if not path.exists():
            raise DataError(f"{path}: does not exist; give a folder of comp4_det_{split}_*.txt, or a COCO results JSON")
    return _from_records(source, ids, classes)


def _from_folder(folder: Path, ids: Sequence[str], split: str) -> VocDetections:
    files = _files_of(folder, split)
    position = {name: index for index, name in enumerate(ids)}
    parts = [_read_file(path, label, position, split) for label, path in sorted(files.items())]
    image, labels, scores, boxes = (np.concatenate(columns) for columns in zip(*parts))
    missing = tuple(name for label, name in enumerate(VOC_CLASSES) if label not in files)
    return VocDetections(image, labels, scores, boxes, missing)


def _files_of(folder: Path, split: str) -> dict[int, Path]:
    """Return the file of each class, by its position in VOC_CLASSES."""
    # In the server's archives they lie in results/VOC2012/Main.
    places = [folder, *sorted(folder.glob("results/VOC20*/Main")), *sorted(folder.glob("VOC20*/Main"))]
    for place in places:
        for prefix in PREFIXES:
            start = f"{prefix}{split}_"
            names = sorted(name for name in os.listdir(place) if name.startswith(start) and name.endswith(".txt"))
            if names:
                return {_label(name[len(start) : -4], place / name): place / name for name in names}
    others = sorted(path.name for path in folder.glob("comp*_det_*.txt"))
    hint = f"; it holds {others[0]}: is --split right?" if others else ""
    raise DataError(f"{folder}: no file comp4_det_{split}_<class>.txt{hint}")


def _label(name: str, path: Path) -> int:
    if name not in VOC_CLASSES:
        raise DataError(f"{path}: {name!r} is no class of PASCAL VOC{nearest(name, VOC_CLASSES)}")
    return VOC_CLASSES.index(name)


def _read_file(path: Path, label: int, position: dict[str, int], split: str) -> tuple[np.ndarray, ...]:
    lines = [line.split() for line in read_text(path, largest=None).splitlines()]
    rows = [row for row in lines if row]
    try:
        numbers = np.array([[float(text) for text in row[1:]] for row in rows], dtype=np.float64).reshape(-1, 5)
        sound = len(numbers) == len(rows) and bool(np.isfinite(numbers).all())
    except ValueError:
        sound = False
    if not sound:
        number = next(number for number, row in enumerate(lines, 1) if row and not _is_sound(row))
        raise DataError(f"{path}, line {number}: {' '.join(lines[number - 1])[:80]!r}; a line is {' '.join(COLUMNS)}")
    unknown = [row[0] for row in rows if row[0] not in position]
    if unknown:
        raise DataError(
            f"{path}: {count(len(unknown), 'detection')} on images that the split {split!r} does not list, "
            f"first {unknown[0]}; give the predictions of this split"
        )
    image = np.array([position[row[0]] for row in rows], dtype=np.int64)
    return image, np.full(len(rows), label), numbers[:, 0], numbers[:, 1:]


def _is_sound(row: list[str]) -> bool:
    try:
        return len(row) == len(COLUMNS) and bool(np.isfinite([float(text) for text in row[1:]]).all())
    except ValueError:
        return False


def _from_records(
    source: str | Path | list[dict[str, Any]], ids: Sequence[str], classes: Sequence[str]
) -> VocDetections:
    data, name = read_source(source, "predictions")
    if isinstance(data, dict):
        raise DataError(f"{name}: holds an object; give predictions: a list of objects with image_id and score")
    records = Records(data, name, "predictions", MEND)
    first = records.rows[0].get("image_id") if records.rows else ""
    image = records.positions("image_id", _positions(ids, by_number=isinstance(first, int)), "the images of the split")
    numbers = {number: label for label, number in enumerate(range(1, len(classes) + 1))}
    whose = "PASCAL VOC's" if tuple(classes) == VOC_CLASSES else "ImageNet DET's"
    labels = records.positions("category_id", numbers, f"{whose} classes, counted from 1,")
    boxes = records.boxes()
    corners = np.concatenate([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]], axis=1)
    return VocDetections(image, labels, records.numbers("score"), corners)


def _positions(ids: Sequence[str], *, by_number: bool) -> dict[Any, int]:
    """Return the position of each image by its id, or by the number of the id's digits.

    Raises:
        DataError: ids have no such numbers, or two have the same.
    """
    if not by_number:
        return {name: index for index, name in enumerate(ids)}
    digits = [name.replace("_", "") for name in ids]
    if not all(text.isdecimal() for text in digits) or len(set(map(int, digits))) < len(ids):
        raise DataError("predictions name images by numbers, but the ids of the split make none; write the ids as text")
    return {int(text): index for index, text in enumerate(digits)}


def write_submission(found: VocDetections, folder: Path, ids: Sequence[str], split: str) -> list[Path]:
    """Write comp4_det_<split>_<class>.txt for every class, scores and boxes unrounded; return the files."""
    paths = []
    for label, name in enumerate(VOC_CLASSES):
        paths.append(folder / f"{PREFIXES[0]}{split}_{name}.txt")
        write_text(paths[-1], "".join(_lines(found, np.flatnonzero(found.labels == label), ids)))
    return paths


def write_det_submission(found: VocDetections, path: Path, first_pixel: int) -> None:
    """Write a line a detection for the server of ImageNet DET: image, class (both counted from 1), score, box."""
    boxes = found.boxes - (1 - first_pixel)
    columns = zip((found.image + 1).tolist(), (found.labels + 1).tolist(), found.scores.tolist(), boxes.tolist())
    write_text(path, "".join(f"{' '.join(map(repr, (*numbers, *box)))}\n" for *numbers, box in columns))


def _lines(found: VocDetections, rows: np.ndarray, ids: Sequence[str]) -> Iterable[str]:
    columns = zip(found.image[rows].tolist(), found.scores[rows].tolist(), found.boxes[rows].tolist())
    for image, score, box in columns:
        yield f"{ids[image]} {score!r} {' '.join(map(repr, box))}\n"

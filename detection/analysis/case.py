"""What an error analysis works on: objects, detections and images in columns, from whichever kind of data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from backbone.common.errors import DataError

from ..coco_json.records import read_source
from ..data.voc import VocObjects
from ..evaluation import GroundTruth, Predictions
from ..evaluation.voc_detections import VocDetections

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Objects:
    """The ground truth of N objects.

    Attributes:
        image, label: (N,) int64, positions in the case's images and classes.
        boxes: (N, 4) float64 [x, y, width, height] in absolute pixels. Boxes of PASCAL VOC, whose corners are the first
            and the last pixel, have width xmax - xmin + 1.
        areas: (N,) float64, pixels: what counts as small, medium or large.
        ignored: (N,) bool: need not be found, and finding them, however often, is no error: crowds of COCO, difficult
            objects of VOC.
        crowd: (N,) bool: the overlap with a detection is the part of the detection inside; always ignored too.
        keypoints: (N, 3 * K) x, y and visibility, None without.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray
    keypoints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, eq=False)
class Detections:
    """N detections: `image`, `label`, `boxes`, `areas` and `keypoints` as in Objects, `scores` (N,) float64."""

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: np.ndarray) -> Detections:
        """Return the detections at `rows`, in that order."""
        columns = (getattr(self, field.name) for field in fields(self))
        return Detections(*(None if column is None else column[rows] for column in columns))


@dataclass(frozen=True, eq=False)
class Case:
    """Detections of one detector on one data set.

    Attributes:
        class_names: one a label.
        image_names: one an image, for titles.
        image_sizes: (height, width), or None where it is not known.
        image_files: one an image, or None without a folder of images.
    """

    class_names: Sequence[str]
    image_names: Sequence[str]
    image_sizes: Sequence[Size | None]
    objects: Objects
    detections: Detections
    image_files: Sequence[Path] | None = None


def case_of_coco(
    ground_truth: GroundTruth,
    predictions: Predictions,
    source: str | Path | dict | None = None,
) -> Case:
    """Return the case of boxes in COCO form.

    Args:
        ground_truth, predictions: as loaded for "bbox", or for "keypoints", which are then drawn.
        source: the ground truth's JSON file, or what it holds, for the images' file names.
    """
    names = _file_names(ground_truth, source)
    return Case(
        class_names=ground_truth.class_names,
        image_names=names,
        image_sizes=ground_truth.image_sizes,
        objects=Objects(
            image=ground_truth.image,
            label=ground_truth.category,
            boxes=ground_truth.boxes,
            areas=ground_truth.areas,
            ignored=ground_truth.crowd,
            crowd=ground_truth.crowd,
            keypoints=ground_truth.keypoints,
        ),
        detections=Detections(
            image=predictions.image,
            label=predictions.category,
            boxes=predictions.boxes,
            areas=predictions.areas,
            scores=predictions.scores,
            keypoints=predictions.keypoints,
        ),
    )


def case_of_voc(truth: VocObjects, detections: VocDetections) -> Case:
    """Return the case of a split of PASCAL VOC or ImageNet DET; with its images, where their folder is there."""
    finite = np.isfinite(truth.boxes).all(axis=1)
    boxes = _from_corners(truth.boxes[finite])
    found = _from_corners(detections.boxes)
    folder = truth.split.images
    names = [f"{name}{truth.split.suffix}" for name in truth.ids]
    return Case(
        class_names=truth.split.classes,
        image_names=names,
        image_sizes=[(height, width) if height and width else None for width, height in truth.sizes.tolist()],
        objects=Objects(
            image=truth.image[finite],
            label=truth.labels[finite],
            boxes=boxes,
            areas=boxes[:, 2] * boxes[:, 3],
            ignored=truth.difficult[finite],
            crowd=np.zeros(len(boxes), dtype=bool),
        ),
        detections=Detections(
            image=detections.image,
            label=detections.labels,
            boxes=found,
            areas=found[:, 2] * found[:, 3],
            scores=detections.scores,
        ),
        image_files=[folder / name for name in names] if folder.is_dir() else None,
    )


def _from_corners(corners: np.ndarray) -> np.ndarray:
    """Return boxes [x, y, width, height] from 0, of first and last pixels counted from 1."""
    return np.concatenate([corners[:, :2] - 1, corners[:, 2:] - corners[:, :2] + 1], axis=1)


def with_images(case: Case, folder: Path) -> Case:
    """Return the case with its image files, `folder` / name of the image.

    Raises:
        DataError: `folder` is no folder, or holds none of the files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"--images {folder}: is no folder; give the one that holds {_first(case.image_names)}")
    files = [folder / name for name in case.image_names]
    if files and not any(map(os.path.isfile, files)):
        raise DataError(
            f"--images {folder}: holds none of the {len(files)} images, such as {_first(case.image_names)}; "
            "give the folder that the file names start from"
        )
    return replace(case, image_files=files)


def _first(names: Sequence[str]) -> str:
    return names[0] if names else "the images"


def _file_names(ground_truth: GroundTruth, source: str | Path | dict | None) -> list[str]:
    names = {}
    if source is not None:
        data, _ = read_source(source, ground_truth.source)
        names = {record["id"]: record.get("file_name") for record in data["images"]}
    return [str(names.get(key) or key) for key in ground_truth.image_ids]

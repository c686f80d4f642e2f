"""A detection set in memory: arrays instead of a dict an annotation, small and shared by the loader's processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backbone.common.errors import DataError

from .keypoints import keypoint_names, keypoint_rows
from .packed import PackedTexts, chained
from .segmentations import Segmentations, joined_segmentations


@dataclass
class DetectionSet:
    """Images with their annotations.

    Attributes:
        classes: names, in the order of the model's class indices.
        category_ids: the JSON's id of each class.
        image_ids: (N,) as in the JSON; files: names relative to `folder`, given as a list, kept packed; sizes: (N, 2)
            width and height.
        starts: (N + 1,); the annotations of image i are starts[i]:starts[i + 1].
        boxes: (M, 4) float32 XYXY, absolute pixels. labels: (M,) class indices. crowd: (M,) bool.
        segmentations: those of each annotation as in the JSON, given as a list, kept packed; None where masks were not
            asked for.
        keypoints: (M, K, 3) float32 x, y and visibility, as in the file; None where they were not asked for.
        keypoint_names: of the K.
        skipped: annotations left out because their box was not usable.
        difficult: objects left out because PASCAL VOC marks them difficult.
        form: of a set of one's own, how it was written, such as "YOLO txt"; else "".
        warnings: what the data check said that is no error, a line for each of the files.
    """

    name: str
    folder: Path
    classes: list[str]
    category_ids: list[int]
    image_ids: np.ndarray
    files: Sequence[str]
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    segmentations: Segmentations | None = None
    keypoints: np.ndarray | None = None
    keypoint_names: tuple[str, ...] = ()
    skipped: int = 0
    difficult: int = 0
    form: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A Python object for each would be copied into every loader process, as soon as it counts its references.
        self.files = PackedTexts.of(self.files)
        if self.segmentations is not None:
            self.segmentations = Segmentations.of(self.segmentations)

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        return self.folder / self.files[index]

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of image `index` in pixels."""
        width, height = self.sizes[index].tolist()
        return width, height

    def trainable(self) -> np.ndarray:
        """Return the (K,) indices of images that have an annotation other than a crowd."""
        return np.flatnonzero(self._sums(~self.crowd))

    def with_keypoints(self, least: int) -> np.ndarray:
        """Return the (K,) indices of images that have at least that many labelled keypoints."""
        return np.flatnonzero(self._sums((self.keypoints[..., 2] > 0).sum(axis=1)) >= least)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each image's annotations, of values (M,)."""
        return np.diff(np.concatenate([[0], np.cumsum(values)])[self.starts])

    def without_objects(self) -> dict[str, list[str]]:
        """Return the classes of which nothing can be learned or measured, by the reason why."""
        every = np.bincount(self.labels, minlength=len(self.classes))
        objects = np.bincount(self.labels[~self.crowd], minlength=len(self.classes))
        drawn = objects
        if self.segmentations is not None:
            masked = ~self.crowd & self.segmentations.present()
            drawn = np.bincount(self.labels[masked], minlength=len(self.classes))
        reasons = {
            "no object": every == 0,
            "crowd regions alone": (every > 0) & (objects == 0),
            "no object with a mask": (objects > 0) & (drawn == 0),
        }
        named = {why: [self.classes[label] for label in np.flatnonzero(of)] for why, of in reasons.items()}
        return {why: names for why, names in named.items() if names}


def real_categories(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the categories that are classes.

    Roboflow's exports list the name of the project first, as the supercategory of all the others, without an object.
    """
    categories = data["categories"]
    if len(categories) < 2:
        return categories
    used = {annotation.get("category_id") for annotation in data.get("annotations") or []}
    for root in categories:
        others = [category for category in categories if category is not root]
        parents = {category.get("supercategory") for category in others}
        if parents == {root.get("name")} and root.get("supercategory") in (None, "none", "") and root["id"] not in used:
            return others
    return categories


def build_set(
    data: dict[str, Any], *, name: str, folder: Path, masks: bool = False, keypoints: bool = False
) -> DetectionSet:
    """Build a DetectionSet from a COCO dict that has passed the checks; unusable boxes are left out and counted.

    A box is unusable if it holds NaN or infinity, has no area, or lies wholly outside its image; the others are
    clipped to it.

    Raises:
        DataError: with `keypoints`, as in `keypoint_names`.
    """
    categories = sorted(real_categories(data), key=lambda category: category["id"])
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    images = data["images"]
    row_of = {image["id"]: row for row, image in enumerate(images)}
    sizes = np.array([(image["width"], image["height"]) for image in images], dtype=np.int32).reshape(-1, 2)
    annotations = [annotation for annotation in data.get("annotations", []) if annotation["image_id"] in row_of]
    owner = np.array([row_of[annotation["image_id"]] for annotation in annotations], dtype=np.int64)
    boxes = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    usable = np.isfinite(boxes).all(axis=1)
    boxes = np.clip(boxes, 0, np.tile(sizes[owner], 2)) if len(boxes) else boxes
    with np.errstate(invalid="ignore"):
        usable &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.argsort(owner, kind="stable")
    order = order[usable[order]]
    names = keypoint_names(categories, name) if keypoints else []
    return DetectionSet(
        name=name,
        folder=Path(folder),
        classes=[category["name"] for category in categories],
        category_ids=[category["id"] for category in categories],
        image_ids=np.array([image["id"] for image in images]),
        files=[image["file_name"] for image in images],
        sizes=sizes,
        starts=np.searchsorted(owner[order], np.arange(len(images) + 1)),
        boxes=boxes[order].astype(np.float32),
        labels=np.array([label_of[annotations[i]["category_id"]] for i in order], dtype=np.int64),
        crowd=np.array([bool(annotations[i].get("iscrowd", 0)) for i in order], dtype=bool),
        segmentations=(annotations[i].get("segmentation") for i in order) if masks else None,
        keypoints=keypoint_rows([annotations[i] for i in order], len(names)) if keypoints else None,
        keypoint_names=tuple(names),
        skipped=len(annotations) - len(order),
    )


def first_difference(a: Sequence[str], b: Sequence[str]) -> str:
    """Return in words where two lists of classes, which are not the same, differ first."""
    for left, right in zip(a, b):
        if left != right:
            return f"{left!r} stands where {right!r} does"
    return f"{max(a, b, key=len)[min(len(a), len(b))]!r} is in one only"


def join_sets(sets: Sequence[DetectionSet]) -> DetectionSet:
    """Return the union of sets with the same classes, such as COCO train and val.

    Raises:
        DataError: the sets have different classes.
    """
    first = sets[0]
    if len(sets) == 1:
        return first
    for other in sets[1:]:
        if other.classes != first.classes:
            found = first_difference(other.classes, first.classes)
            raise DataError(f"{other.name} and {first.name} cannot be joined, their categories differ: {found}")
        if other.keypoint_names != first.keypoint_names:
            raise DataError(f"{other.name} and {first.name} cannot be joined, their keypoints differ")
    segmentations = None
    if all(part.segmentations is not None for part in sets):
        segmentations = joined_segmentations([part.segmentations for part in sets])
    return replace(
        first,
        name=" + ".join(part.name for part in sets),
        folder=Path(),
        image_ids=np.concatenate([part.image_ids for part in sets]),
        files=PackedTexts.of(str(part.path(index)) for part in sets for index in range(len(part))),
        sizes=np.concatenate([part.sizes for part in sets]),
        starts=chained([part.starts for part in sets]),
        boxes=np.concatenate([part.boxes for part in sets]),
        labels=np.concatenate([part.labels for part in sets]),
        crowd=np.concatenate([part.crowd for part in sets]),
        segmentations=segmentations,
        keypoints=None if first.keypoints is None else np.concatenate([part.keypoints for part in sets]),
        skipped=sum(part.skipped for part in sets),
        difficult=sum(part.difficult for part in sets),
        warnings=tuple(warning for part in sets for warning in part.warnings),
    )

"""From a VOC split to a DetectionSet."""

from __future__ import annotations

import numpy as np

from ..sets import DetectionSet
from .read import VocObjects, image_sizes


def build_voc_set(objects: VocObjects, *, name: str, difficult: bool) -> DetectionSet:
    """Build a DetectionSet; unusable boxes are left out and counted, the others clipped to their image.

    Objects count pixels from 1 and include the last one; here a box is its edges, so 1 is taken off xmin and ymin, and
    a box of 1..W covers the image from 0 to W (as in detectron2).

    Args:
        difficult: keep the objects marked difficult; otherwise they are left out and counted apart.
    """
    sizes = objects.sizes if objects.split.annotated else image_sizes(objects.split, objects.ids)
    boxes = objects.boxes - (1, 1, 0, 0)
    usable = np.isfinite(boxes).all(axis=1)
    boxes = np.clip(boxes, 0, np.tile(sizes[objects.image], 2)) if len(boxes) else boxes
    with np.errstate(invalid="ignore"):
        usable &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    left_out = np.zeros_like(usable) if difficult else objects.difficult
    kept = usable & ~left_out
    return DetectionSet(
        name=name,
        folder=objects.split.images,
        classes=list(objects.split.classes),
        category_ids=list(range(1, len(objects.split.classes) + 1)),
        image_ids=np.array(objects.ids),
        files=[f"{id}{objects.split.suffix}" for id in objects.ids],
        sizes=sizes,
        starts=np.searchsorted(objects.image[kept], np.arange(len(objects.ids) + 1)),
        boxes=boxes[kept].astype(np.float32),
        labels=objects.labels[kept],
        crowd=np.zeros(int(kept.sum()), dtype=bool),
        skipped=int((~usable & ~left_out).sum()),
        difficult=int(left_out.sum()),
    )

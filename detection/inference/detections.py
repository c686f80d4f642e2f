"""What a detector found on one image, for people and for further code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backbone.common.images.save import encode_jpeg, save_picture
from backbone.common.text import count

from ..visualization import draw_objects
from .run import coco_records

# Boxes below this score are not drawn, unless the caller asks for another one; as `--score` of tools/predict.py.
DRAWN = 0.5
SHOWN = 960  # pixels of the longer side in a notebook


def found_line(total: int, above: int, score: float) -> str:
    """Return "237 boxes, 12 of them above 0.5"."""
    return f"{count(total, 'box', 'boxes')}, {above} of them above {score:g}"


@dataclass(frozen=True)
class Detection:
    """One object.

    Attributes:
        box: (4,) XYXY, absolute pixels.
        label: index into the classes of the detector; class_name: its name.
        mask: (H, W) bool, None where the detector has no masks.
        keypoints: (K, 3) x, y and score, None where it has none.
    """

    box: np.ndarray
    score: float
    label: int
    class_name: str
    mask: np.ndarray | None = None
    keypoints: np.ndarray | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The objects of one image, the surest first.

    `len`, iteration and `result[0]` give single ones; a slice or an array of bools or indices gives a part:
    `result[:10]`, `result[result.scores > 0.5]`.

    Attributes:
        boxes: (N, 4) float32 XYXY, absolute pixels of the image as given.
        scores: (N,) float32.
        labels: (N,) int64, indices into `classes`.
        classes: the names of all classes of the detector; category_ids: what `to_coco` writes for them.
        size: (height, width) of the image.
        masks: (N, height, width) bool, None where the detector has no masks.
        keypoints: (N, K, 3) x, y in pixels and score, None where it has none.
        read: returns the image as (height, width, 3) BGR uint8. What the caller gave is read again, and not copied.
        source: the file that the image comes from, and `frame`: its number in a video; of `Detector.stream`.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: list[str]
    category_ids: list[int]
    size: tuple[int, int]
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    read: Callable[[], np.ndarray] | None = field(default=None)
    source: str = ""
    frame: int | None = None

    @property
    def class_names(self) -> list[str]:
        """The name of the class of each object."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            mask, points = (None if part is None else part[index] for part in (self.masks, self.keypoints))
            label = int(self.labels[index])
            return Detection(self.boxes[index], float(self.scores[index]), label, self.classes[label], mask, points)
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = index if index.size else index.astype(np.int64)
        parts = ("boxes", "scores", "labels", "masks", "keypoints")
        values = {part: getattr(self, part) for part in parts}
        return replace(self, **{part: None if value is None else value[index] for part, value in values.items()})

    def __repr__(self) -> str:
        often = Counter(self.class_names).most_common()
        names = ", ".join(f"{number} {name}" for name, number in often[:5]) + (", ..." if len(often) > 5 else "")
        line = found_line(len(self), int((self.scores > DRAWN).sum()), DRAWN)
        return f"<Detections: {line}{': ' if names else ''}{names}>"

    def draw(self, score: float = DRAWN) -> Image.Image:
        """Return the image with boxes, masks and names of what has at least this score, as an RGB PIL image.

        Raises:
            DataError: the image cannot be read again.
        """
        shown = self[self.scores >= score]
        canvas = self.read() if self.read is not None else np.full((*self.size, 3), 255, np.uint8)
        further = {"masks": shown.masks, "keypoints": shown.keypoints}
        drawn = draw_objects(canvas, shown.boxes, shown.labels, self.classes, scores=shown.scores, **further)
        return Image.fromarray(np.ascontiguousarray(drawn[:, :, ::-1]))

    def save(self, path: str | Path, score: float = DRAWN) -> None:
        """Write what `draw` shows; the suffix says the form: .jpg, .png, .webp, ...

        Raises:
            DataError: Pillow writes no images of this suffix.
            RunError: the file cannot be written.
        """
        save_picture(path, self.draw(score))

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Return records in COCO's results form: XYWH boxes, the data's category ids, compressed RLE masks."""
        of_objects = (self.boxes, self.scores, self.labels, self.masks)
        return coco_records(*of_objects, image_id, self.category_ids, self.keypoints)

    def _repr_jpeg_(self) -> bytes:
        """Return the picture that a notebook shows, and keeps: at the size of its column."""
        picture = self.draw()
        picture.thumbnail((SHOWN, SHOWN))
        return encode_jpeg(np.asarray(picture))

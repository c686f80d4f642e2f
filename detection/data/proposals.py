"""Precomputed proposals of a set, in memory and as an .npz file without pickled objects."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbone.common.errors import DataError
from backbone.common.files import write_whole

from .sets import DetectionSet


@dataclass(frozen=True)
class Proposals:
    """Proposals of every image of a set, best first.

    Attributes:
        starts: (N + 1,) int64; the proposals of image i are starts[i]:starts[i + 1].
        boxes: (M, 4) float32 XYXY, absolute pixels of the image files.
    """

    starts: np.ndarray
    boxes: np.ndarray

    def of(self, index: int) -> np.ndarray:
        """Return the boxes (R, 4) of image `index`."""
        return self.boxes[self.starts[index] : self.starts[index + 1]]


def pack(found: Sequence[np.ndarray]) -> Proposals:
    """Return the Proposals of boxes (R, 4), an array an image."""
    starts = np.cumsum([0, *map(len, found)], dtype=np.int64)
    return Proposals(starts, np.concatenate([np.zeros((0, 4)), *found]).astype(np.float32))


def save_proposals(path: str | Path, proposals: Proposals, images: DetectionSet) -> None:
    """Write the proposals of `images` whole.

    Raises:
        RunError: it cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, image_ids=images.image_ids, starts=proposals.starts, boxes=proposals.boxes)

    write_whole(path, write)


def load_proposals(path: str | Path, images: DetectionSet) -> Proposals:
    """Read what `save_proposals` wrote, running nothing in it.

    Raises:
        DataError: it is missing, broken or unsafe, or holds proposals of other images.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, starts, boxes = file["image_ids"], file["starts"], file["boxes"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: no proposals can be read ({reason}); remove the file, --resume makes it anew"
        ) from None
    if not np.array_equal(ids, images.image_ids):
        raise DataError(f"{path}: holds proposals of other images than {images.name}'s; remove it and --resume")
    if not _is_sound(starts, boxes, len(images)):
        raise DataError(f"{path}: its arrays do not fit each other; remove the file, --resume makes it anew")
    return Proposals(starts, boxes)


def _is_sound(starts: np.ndarray, boxes: np.ndarray, number: int) -> bool:
    if starts.shape != (number + 1,) or starts.dtype != np.int64 or boxes.ndim != 2 or boxes.shape[1] != 4:
        return False
    ordered = starts[0] == 0 and starts[-1] == len(boxes) and bool((np.diff(starts) >= 0).all())
    return ordered and boxes.dtype == np.float32 and bool(np.isfinite(boxes).all())

"""Precomputed proposals of a set, in memory and as an .npz file without pickled objects."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from backbone.common.errors import DataError
from backbone.common.files import write_whole

from .sets import DetectionSet

CHUNK = 2**22  # bytes, or boxes, that are looked at together


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
    """Map what `save_proposals` wrote, so that processes share it; nothing in it runs.

    Raises:
        DataError: it is missing, broken or unsafe, or holds proposals of other images.
    """
    try:
        ids, starts, boxes = map_arrays(Path(path), ("image_ids", "starts", "boxes"))
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


def map_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Return arrays of an .npz file, mapped where they lie in it uncompressed, as np.savez leaves them; else read.

    Raises:
        OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile: see np.load with allow_pickle=False.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        return [_map(archive, file, archive.getinfo(f"{name}.npy")) for name in names]


def _map(archive: zipfile.ZipFile, file: BinaryIO, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as member:
        if entry.compress_type != zipfile.ZIP_STORED:
            return np.lib.format.read_array(member, allow_pickle=False)
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{entry.filename} is of another version")
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(member)
        header, size = member.tell(), dtype.itemsize * math.prod(shape)
        if dtype.hasobject or header + size != entry.file_size:
            raise ValueError(f"{entry.filename} holds Python objects, or more or less than it says")
        # At its end, what was read is compared with the checksum.
        while member.read(CHUNK):
            pass
    # Before the content stand 26 bytes, the lengths of name and extra field, and these.
    file.seek(entry.header_offset + 26)
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + header
    if not size:
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "r", start, shape, "F" if in_columns else "C")


def _is_sound(starts: np.ndarray, boxes: np.ndarray, number: int) -> bool:
    if starts.shape != (number + 1,) or starts.dtype != np.int64 or boxes.ndim != 2 or boxes.shape[1] != 4:
        return False
    ordered = starts[0] == 0 and starts[-1] == len(boxes) and bool((np.diff(starts) >= 0).all())
    parts = (boxes[start : start + CHUNK] for start in range(0, len(boxes), CHUNK))
    return ordered and boxes.dtype == np.float32 and all(np.isfinite(part).all() for part in parts)

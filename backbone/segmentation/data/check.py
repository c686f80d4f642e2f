"""What is wrong with a set, found before the first step: labels, sizes, files, and classes without a pixel."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ...common.errors import DataError
from ...common.images import read_header, read_image
from ...common.text import count
from ...engine import distributed
from ...engine.broken import check_left_out
from ...engine.image_progress import ImageProgress
from ...engine.loading import make_loader, resolve_workers, until_error
from ..evaluation import VOID
from .sets import LabelledFiles, SegmentationSet

# Images that a loader process is worth starting for.
IMAGES_A_WORKER = 64


@dataclass
class Findings:
    """What a look at every image of a set has found.

    Attributes:
        pixels: (256,) pixels of each label; images: (256,) images that have it.
        void: images whose labels are void all over.
        wrong: {image: what is wrong with its labels, or how its size differs from theirs}.
        unreadable: {image: why it cannot be read}.
    """

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    void: list[int] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def __iadd__(self, other: Findings) -> Findings:
        self.pixels, self.images = self.pixels + other.pixels, self.images + other.images
        self.void = sorted(self.void + other.void)
        self.wrong = dict(sorted({**self.wrong, **other.wrong}.items()))
        self.unreadable = dict(sorted({**self.unreadable, **other.unreadable}.items()))
        return self


def examine(images: SegmentationSet, workers: int, *, decode: bool = False) -> Findings:
    """Read all labels, and of the images what tells their size and whether they end, or all (`decode`). Collective."""
    share = range(distributed.rank(), len(images), distributed.world_size())
    found = Findings()
    loader = make_loader(
        _Looks(images, share, decode), workers=min(workers, len(share) // IMAGES_A_WORKER), pin_memory=False
    )
    with ImageProgress(len(images), f"checking {images.name}", visible=True) as progress:
        for (one,) in until_error(loader):
            found += one
            progress.add(1)
    total = Findings()
    for part in distributed.gather(found):
        total += part
    return total


class _Looks(Dataset):
    def __init__(self, images: SegmentationSet, share: range, decode: bool) -> None:
        self.images = images
        self.share = share
        self.decode = decode

    def __len__(self) -> int:
        return len(self.share)

    def __getitem__(self, place: int) -> Findings:
        images, index, found = self.images, self.share[place], Findings()
        try:
            found.pixels, size = images.look(index)
        except DataError as error:
            found.wrong[index] = str(error)
            return found
        found.images = (found.pixels > 0).astype(np.int64)
        if size is not None and not found.pixels[:VOID].any():
            found.void.append(index)
        try:
            stored = _stored_size(images, index)
            if self.decode:
                read_image(images.path(index), **images.reading)
        except DataError as error:
            found.unreadable[index] = str(error)
            return found
        if size is not None and stored != size:
            # Unless they differ by EXIF's orientation alone.
            try:
                images.read(index)
            except DataError as error:
                found.wrong[index] = str(error)
        return found


def _stored_size(images: SegmentationSet, index: int) -> tuple[int, int]:
    """Return an image's (width, height) from its header; decoded only where Pillow does not know the format.

    Raises:
        DataError: it is missing, cut off or no image.
    """
    from PIL import Image

    path = images.path(index)
    try:
        content = path.read_bytes()
        if read_header(content).fault is None:
            with Image.open(io.BytesIO(content)) as image:
                return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass
    height, width = read_image(path, **images.reading).shape[:2]
    return width, height


def check_set(images: SegmentationSet, config: Any, *, training: bool) -> list[str]:
    """Look at every image of a set, count its pixels, and return what is strange, a line each. A collective call.

    Raises:
        DataError: labels or sizes are wrong, too many images cannot be read, or the labels hold nothing to learn or
            to test.
    """
    found = examine(images, resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size()))
    if found.wrong:
        more = f" ({len(found.wrong):,} of {count(len(images), 'image')} are wrong)" if len(found.wrong) > 1 else ""
        raise DataError(next(iter(found.wrong.values())) + more)
    images.pixels = found.pixels[: len(images.classes)]
    notes = _unreadable(images, found, config, training=training)
    if images.has_truth:
        notes += class_notes(images, found, training=training)
    if found.void:
        first = images.source(found.void[0])
        notes.append(f"{images.name}: {count(len(found.void), 'label image')} void ({VOID}) all over, first {first}")
    return notes


def _unreadable(images: SegmentationSet, found: Findings, config: Any, *, training: bool) -> list[str]:
    if not found.unreadable:
        return []
    number, first = len(found.unreadable), next(iter(found.unreadable.values()))
    if not training:
        check_left_out(images.name, len(images), found.unreadable)
    elif number > config.DATA.MAX_BAD_IMAGES or number == len(images):
        raise DataError(
            f"{images.name}: {number:,} of {count(len(images), 'image')} cannot be read, DATA.MAX_BAD_IMAGES allows "
            f"{config.DATA.MAX_BAD_IMAGES}; the first: {first}"
        )
    what = "others stand in for them" if training else "left out"
    return [f"{images.name}: {count(number, 'image')} cannot be read, {what}; the first: {first}"]


def class_notes(images: SegmentationSet, found: Findings, *, training: bool = False) -> list[str]:
    """Return what is strange about the classes of a set.

    Raises:
        DataError: its labels hold nothing to learn (`training`), or are void all over.
    """
    pixels = found.pixels[: len(images.classes)]
    present = [name for name, number in zip(images.classes, pixels) if number]
    void = f" and void ({VOID}) alone; where {VOID} stands for an object, DATA.ID_MAP '0: 0, {VOID}: 1' says so"
    if not present:
        raise DataError(f"{images.name}: all labels are void ({VOID}), which counts neither in training nor in testing")
    if len(present) == 1 and len(images.classes) > 1:
        alone = f"{images.name}: its labels hold {present[0]!r}" + (void if found.pixels[VOID] else " alone")
        if training:
            raise DataError(f"{alone}: nothing can be learned" if not found.pixels[VOID] else alone)
        return [alone]
    absent = [name for name in images.own_classes if name not in present]
    if not absent:
        return []
    shown = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
    text = f"{images.name}: no pixel of {shown} ({len(absent)} of {count(len(images.classes), 'class', 'classes')})"
    # Of the numbers in files, those at the ends tell a list of names that is one off.
    ends = isinstance(images, LabelledFiles) and {images.own_classes[0], images.own_classes[-1]} & set(absent)
    return [text + ("; labels count from 0: are the names shifted by one?" if ends else "")]

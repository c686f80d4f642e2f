"""One process's share of what is to be detected on, image by image, and the pixels of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backbone import DataError
from backbone.common.images import decode_image, read_image
from backbone.common.images.given import pixels_of
from backbone.common.tar import read_member
from backbone.engine import distributed

from .inputs import MEMBER, VIDEO, Inputs, Row
from .videos import Video


class Item(NamedTuple):
    """An image; a frame of a video; or a fault that is to be named.

    Attributes:
        place: of its row among the inputs.
        frame: the number of a frame, from 0; `pixels` (H, W, 3) BGR uint8, and `seconds` from the beginning.
    """

    row: Row
    place: int
    frame: int = -1
    pixels: np.ndarray | None = None
    seconds: float = 0.0
    fault: str = ""

    @property
    def id(self) -> int:
        """The id of the image; that of a video's own fault comes before its frames'."""
        return self.row.id + 1 + self.frame

    @property
    def name(self) -> str:
        """The file name of the image; of a frame, one in a folder that is called as the video."""
        return self.row.name if self.frame < 0 else f"{self.row.name}/frame_{self.frame:06d}"


def items_of(inputs: Inputs, *, every: int = 1, done: np.ndarray | None = None) -> Iterator[Item]:
    """Yield what this process has to detect on, in order.

    Args:
        every: of a video, each frame whose number this divides.
        done: (N,) sorted ids of images that are left out.
    """
    done = np.empty(0, np.int64) if done is None else done
    rank, processes, turn = distributed.rank(), distributed.world_size(), 0

    def is_own(id_: int) -> bool:
        # All processes ask this of the same images in the same order.
        nonlocal turn
        at = int(np.searchsorted(done, id_))
        if at < len(done) and done[at] == id_:
            return False
        turn += 1
        return (turn - 1) % processes == rank

    for place, row in enumerate(inputs):
        if row.kind == VIDEO:
            try:
                video = Video(row.path)
                for frame, pixels in video.read(lambda n, row=row: n % every == 0 and is_own(row.id + 1 + n)):
                    yield Item(row, place, frame, pixels, round(frame / video.rate, 6) if video.rate else 0.0)
            except DataError as error:
                if is_own(row.id):
                    yield Item(row, place, fault=str(error))
        elif is_own(row.id):
            yield Item(row, place, fault=row.fault)


def number_of_items(inputs: Inputs, every: int = 1) -> int:
    """Return how many items all processes have; of a video, as many as it says that it has."""
    number = len(inputs)
    for row in inputs if inputs.has_videos else ():
        if row.kind == VIDEO:
            try:
                number += -(-Video(row.path).frames // every) - 1
            except DataError:
                continue
    return number


def pixels_of_item(item: Item, *, channel_order: str, channels: int) -> np.ndarray:
    """Return the pixels of an item as `read_image` does.

    Raises:
        DataError: it is a fault, or cannot be read.
    """
    row, keywords = item.row, {"channel_order": channel_order, "channels": channels}
    if item.fault:
        raise DataError(item.fault)
    if item.pixels is not None:
        return pixels_of(item.pixels, bgr=True, **keywords)
    if row.kind != MEMBER:
        return read_image(row.path, **keywords)
    source = f"{row.path}: {row.name.rpartition(f'{row.path.name}/')[2]}"
    try:
        content = read_member(row.path, row.offset, row.size)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    return decode_image(content, source, **keywords)

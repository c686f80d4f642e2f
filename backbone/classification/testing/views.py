"""From a set of images to the views of a protocol, cut in the loader's processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...common.errors import DataError
from ...engine.loading import make_loader
from ..data.sets import LabelledImages
from .protocols import Protocol

# An image takes some 4 MB at all sides of dense, and a loader holds two chunks a process; hence small chunks there,
# whose groups of one size are joined afterwards.
DENSE_CHUNK, DENSE_TOGETHER = 4, 64


class Group(NamedTuple):
    """Views of one size: `rows` (n,), whose they are, and `pixels` (n, views, h, w, 3), uint8 RGB."""

    rows: Tensor
    pixels: Tensor


class Chunk(NamedTuple):
    """Some images: their views grouped by size, and (row, what is wrong) of those that cannot be read."""

    images: int
    groups: list[Group]
    unreadable: list[tuple[int, str]]


class Views(Dataset):
    """The views of the images `indices`; rows count along `indices`."""

    def __init__(self, images: LabelledImages, indices: Sequence[int], protocol: Protocol) -> None:
        self.images = images
        self.indices = indices
        self.protocol = protocol

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> tuple[int, list[np.ndarray] | str]:
        try:
            return row, self.protocol.cut(self.images.decoded(self.indices[row]))
        except DataError as error:
            return row, str(error)


def group_by_size(samples: list[tuple[int, list[np.ndarray] | str]]) -> Chunk:
    """Put views of one size together."""
    found: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    unreadable = []
    for row, views in samples:
        if isinstance(views, str):
            unreadable.append((row, views))
            continue
        for array in views:
            found.setdefault(array.shape, []).append((row, array))
    groups = [
        Group(torch.tensor([row for row, _ in members]), torch.from_numpy(np.stack([array for _, array in members])))
        for members in found.values()
    ]
    return Chunk(len(samples), groups, unreadable)


def join_chunks(chunks: Iterable[Chunk], images: int) -> Iterator[Chunk]:
    """Join chunks until they hold at least `images` images, and so their groups of one size."""
    waiting: list[Chunk] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(one.images for one in waiting) >= images:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(chunks: list[Chunk]) -> Chunk:
    found: dict[tuple[int, ...], list[Group]] = {}
    for group in chain.from_iterable(chunk.groups for chunk in chunks):
        found.setdefault(tuple(group.pixels.shape[1:]), []).append(group)
    groups = [Group(*(torch.cat(parts) for parts in zip(*members))) for members in found.values()]
    unreadable = list(chain.from_iterable(chunk.unreadable for chunk in chunks))
    return Chunk(sum(chunk.images for chunk in chunks), groups, unreadable)


def load_views(views: Views, *, batch_size: int, workers: int, pin_memory: bool) -> DataLoader:
    """Return a loader of Chunks, in order; see `evaluate` for `batch_size`."""
    if views.protocol.name == "dense":
        size = min(DENSE_CHUNK, batch_size)
    else:
        size = max(1, batch_size // views.protocol.views_a_size)
    rows = list(range(len(views)))
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    return make_loader(views, workers=workers, pin_memory=pin_memory, batches=chunks, collate=group_by_size)

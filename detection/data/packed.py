"""Many short byte strings or texts in one array: no Python object for each, so that processes share their memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

PART = 1024  # items that are made at once where all are asked for


class Packed(Sequence):
    """Byte strings one after another; an item is made when it is asked for.

    Attributes:
        content: (B,) uint8.
        starts: (N + 1,) int64; string i is content[starts[i]:starts[i + 1]].
    """

    def __init__(self, content: np.ndarray, starts: np.ndarray) -> None:
        self.content = content
        self.starts = starts

    @classmethod
    def of(cls, items: Iterable[Any]) -> Packed:
        """Pack bytes (or texts); what is packed already stays as it is."""
        if isinstance(items, cls):
            return items
        content, ends = bytearray(), [0]
        for item in items:
            content += cls.encode(item)
            ends.append(len(content))
        return cls(np.frombuffer(content, np.uint8), np.array(ends, np.int64))

    @staticmethod
    def encode(item: bytes) -> bytes:
        return item

    @staticmethod
    def decode(item: bytes) -> Any:
        return item

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._slice(*index.indices(len(self)))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"no item {index} of {len(self)}")
        return self.decode(self.content[self.starts[place] : self.starts[place + 1]].tobytes())

    def __iter__(self) -> Iterator[Any]:
        for first in range(0, len(self), PART):
            yield from self[first : first + PART]

    def _slice(self, first: int, end: int, step: int) -> list[Any]:
        if step != 1 or first >= end:
            return [self[place] for place in range(first, end, step)]
        # They lie one after another: to copy them one by one takes three times as long and more.
        ends = (self.starts[first : end + 1] - self.starts[first]).tolist()
        content = self.content[self.starts[first] : self.starts[end]].tobytes()
        return [self.decode(content[start:stop]) for start, stop in pairwise(ends)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None


class PackedTexts(Packed):
    """Texts, in UTF-8; lone surrogates, as in file names that are no UTF-8, come back as they were."""

    @staticmethod
    def encode(item: str) -> bytes:
        return item.encode("utf-8", "surrogatepass")

    @staticmethod
    def decode(item: bytes) -> str:
        return item.decode("utf-8", "surrogatepass")


def joined(parts: Sequence[Packed]) -> Packed:
    """Return the items of all parts in one."""
    content = np.concatenate([part.content for part in parts])
    return type(parts[0])(content, chained([part.starts for part in parts]))


def chained(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the starts (N + 1,) of all parts' items, where the items of the parts stand one after another."""
    offsets = np.cumsum([0, *(starts[-1] for starts in parts)])
    return np.concatenate([*(starts[:-1] + offset for starts, offset in zip(parts, offsets)), offsets[-1:]])

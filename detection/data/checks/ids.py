"""Ids in a mended copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

from ...coco_json.columns import whole_number


class Ids:
    """New ids in place of those that are no integers, absent or joined; whatever refers to them follows."""

    def __init__(self, records: Iterable[dict]) -> None:
        self.known: set[int] = set()
        self._renamed: dict[object, int] = {}
        self._fresh = fresh_ids({id for record in records if (id := to_integer(record.get("id"))) is not None})

    def take(self, record: dict) -> int:
        """Return the id of a record: its own if it can be read as an integer, else a new one."""
        id = to_integer(record.get("id"))
        if id is None:
            id = next(self._fresh)
            if record.get("id") is not None:
                self._renamed.setdefault(_key(record["id"]), id)
        return id

    def join(self, id: int, into: int) -> None:
        """Let references to `id` mean `into`."""
        self._renamed.setdefault(_key(id), into)

    def resolve(self, reference: object) -> int | None:
        """Return the id that a reference means, or None when there is no such record."""
        id = to_integer(reference)
        if id not in self.known:
            id = self._renamed.get(_key(reference if id is None else id))
        return id if id in self.known else None


def _key(value: object) -> object:
    # True equals 1, and lists cannot be keys.
    return (type(value).__name__, value if isinstance(value, (int, float, str)) else repr(value))


def fresh_ids(used: set[int]) -> Iterator[int]:
    """Yield positive ids that are not in use, behind the greatest one."""
    greatest = max(used, default=0)
    start = max(greatest, 0) + 1 if greatest < 2**62 else 1
    return (id for id in count(start) if id not in used)


def to_integer(value: object) -> int | None:
    """Read an integer as leniently as is safe: 12, 12.0 and "12", but no bool."""
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        value = int(value) if len(value) < 20 else None
    return whole_number(value)

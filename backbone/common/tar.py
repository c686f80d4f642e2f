"""Members of plain tar archives, found once and read in place.

Nothing is unpacked: names in an archive are names, never paths.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import DataError

# As webdataset has it: the key is the path up to the first dot of its last part.
NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
LARGEST_LABEL = 2**20  # bytes of a member whose content is read along
LARGEST_IMAGE = 2**30  # bytes of one that is read in place


class Member(NamedTuple):
    """A file of an archive: `key` and `ending` (lower case) are its name before and behind the first dot; its bytes
    begin at `offset`; `content` is theirs where it was asked for, else empty."""

    name: str
    key: str
    ending: str
    offset: int
    size: int
    content: bytes


def tar_members(path: Path, read_along: Collection[str] = ()) -> Iterator[Member]:
    """Yield each file of an archive that has a key and an ending, in order.

    Args:
        read_along: endings of which the content is read too, up to LARGEST_LABEL bytes.

    Raises:
        DataError: the archive is damaged, compressed or not to be read; where that shows, after what comes before.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # or it keeps all that it has seen
                if not member.isreg() or member.issparse() or not (found := NAME.fullmatch(member.name)):
                    continue
                key, ending, content = found.group(1), found.group(2).lower(), b""
                if ending in read_along and member.size <= LARGEST_LABEL:
                    content = archive.extractfile(member).read()
                yield Member(member.name, key, ending, member.offset_data, member.size, content)
            # It takes what it cannot read for the end.
            archive.fileobj.seek(archive.offset)
            if (rest := archive.fileobj.read(tarfile.BLOCKSIZE)) and rest != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"damaged at byte {archive.offset:,}")
    except tarfile.TarError as error:
        raise DataError(
            f"{path}: not a readable tar archive ({error}); shards are plain .tar, not compressed"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def read_member(path: Path, offset: int, size: int) -> np.ndarray:
    """Return the bytes of a member as (size,) uint8.

    Raises:
        DataError: they cannot be read, are too many (LARGEST_IMAGE), or some are missing.
    """
    try:
        if size > LARGEST_IMAGE:
            raise OSError(f"has {size:,} bytes")
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise DataError(f"cannot be read: {error}") from None
    if len(content) < size:
        raise DataError(f"cannot be read: {size - len(content):,} bytes are missing")
    return np.frombuffer(content, dtype=np.uint8)

"""The wire format of protocol buffers, read without their library: enough for a file of known messages.

Nothing is allocated from a length in the file; a length beyond the end of its message is an error. Messages are read
one level at a time, so that a file cannot make the reader recurse.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
# ResNet-152 has some 6,000 records; a file of millions of empty ones would keep the reader busy.
MOST_RECORDS = 100_000


class WireError(ValueError):
    """The bytes are not protocol buffers, or cut off."""


class Reader:
    """Reads messages of one file; counts their records, over all messages, against `MOST_RECORDS`."""

    def __init__(self) -> None:
        self.records = 0

    def fields(self, message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Yield (field number, wire type, value): an int for VARINT, else the bytes of the value.

        Raises:
            WireError: cut off, of an unknown wire type, or with too many records.
        """
        position, end = 0, len(message)
        while position < end:
            self.records += 1
            if self.records > MOST_RECORDS:
                raise WireError(f"more than {MOST_RECORDS:,} records")
            tag, position = varint(message, position)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise WireError("field number 0")
            if wire == VARINT:
                value, position = varint(message, position)
                yield number, wire, value
                continue
            if wire == BYTES:
                size, position = varint(message, position)
            elif wire in FIXED_SIZES:
                size = FIXED_SIZES[wire]
            else:
                raise WireError(f"wire type {wire}")
            if size > end - position:
                raise WireError("cut off")
            yield number, wire, message[position : position + size]
            position += size


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the unsigned number at `position`, of 64 bits at most, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise WireError("cut off")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise WireError("a number of more than 64 bits")


def varints(message: memoryview) -> list[int]:
    """Return the numbers of a packed field."""
    values, position = [], 0
    while position < len(message):
        value, position = varint(message, position)
        values.append(value)
    return values

"""The class numbers of ImageNet's development kit: its own order, not that of the wnids.

They stand in its meta.mat, a MATLAB 5 file with one array of structures.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from ...errors import DataError

META = "meta.mat"
HEADER = 128
MATRIX, COMPRESSED, UTF16 = 14, 15, 4
# Codes of struct.unpack by the number types of the format.
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
# Parts of a matrix before its content: flags, dimensions, name.
BEFORE = 3

Element = tuple[int, bytes]


def wnids_by_number(path: Path) -> dict[int, str]:
    """Return {ILSVRC2012_ID: wnid} of the development kit's meta.mat.

    Raises:
        DataError: it is missing, or not that file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}; the numbers of the development kit have their meaning "
            "there; copy it to that place, or name a file of wnids with DATA.VAL_SYNSETS"
        ) from None
    try:
        matrices = [_elements(data) for kind, data in _elements(content[HEADER:]) if kind == MATRIX]
        rows = next(matrix for matrix in matrices if len(matrix) > BEFORE and _text(matrix[BEFORE - 1]) == "synsets")
        return _read_synsets(rows)
    except (struct.error, zlib.error, ValueError, KeyError, IndexError, StopIteration):
        raise DataError(f"{path}: not the meta.mat of ImageNet's development kit") from None


def _read_synsets(parts: list[Element]) -> dict[int, str]:
    (length,) = struct.unpack("<i", parts[BEFORE][1])
    names = parts[BEFORE + 1][1]
    fields = [names[at : at + length].split(b"\0")[0].decode() for at in range(0, len(names), length)]
    values = [_elements(data)[BEFORE:] for _, data in parts[BEFORE + 2 :]]
    numbers, wnids = (values[fields.index(name) :: len(fields)] for name in ("ILSVRC2012_ID", "WNID"))
    return {_number(number[0]): _text(wnid[0]) for number, wnid in zip(numbers, wnids, strict=True)}


def _elements(data: bytes) -> list[Element]:
    """Return the (type, content) of the elements in a part of the file; compressed ones are unpacked."""
    found, at = [], 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if not kind >> 16 and at + 8 + size > len(data):
            raise ValueError("the file is cut off")
        if kind >> 16:
            # The short form: type and length in two bytes each, the content behind them.
            found.append((kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]))
            at += 8
        elif kind == COMPRESSED:
            found += _elements(zlib.decompress(data[at + 8 : at + 8 + size]))
            at += 8 + size
        else:
            found.append((kind, data[at + 8 : at + 8 + size]))
            at += 8 + size + -size % 8
    return found


def _text(element: Element) -> str:
    kind, data = element
    return data.decode("utf-16-le" if kind == UTF16 else "utf-8")


def _number(element: Element) -> int:
    kind, data = element
    return int(struct.unpack_from("<" + NUMBERS[kind], data)[0])

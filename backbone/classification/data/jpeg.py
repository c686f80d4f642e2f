"""Decoding no more of a JPEG file than a region of it needs."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ...common.errors import DataError
from ...common.images.bands import NUMPY
from ...common.images.headers import JPEG, JPEG_END, is_whole_but_for_end

START_OF_SCAN, APP1, APP2, RESTARTS = 0xDA, 0xE1, 0xE2, 0xDD
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2
UNUSUAL = {*range(0xC0), *range(0xD0, 0xDA), 0xFF}  # markers without a length, and fill bytes, before the image
REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
# Of OpenCV 4.11 and later.
DIRECT_RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)
# Rows below the region that its last rows' chroma is interpolated from.
CHROMA_ROWS = 2
# Zeros behind a shortened file, so that the decoder's reading ahead never meets the end.
SPARE = 64


class Box(NamedTuple):
    """A region: left and top corner, width and height, in pixels."""

    x: int
    y: int
    width: int
    height: int


class Frame(NamedTuple):
    """What is needed of a JPEG header.

    Attributes:
        width, height: as stored, before EXIF's orientation.
        block_rows: rows of the image that are coded together.
        height_at: offset of the height in the file.
        end: offset of the end-of-image marker.
        one_pass: rows are coded from top to bottom, once, with no markers and no second image behind them.
        exif: the file has EXIF data.
    """

    width: int
    height: int
    block_rows: int
    height_at: int
    end: int
    one_pass: bool
    exif: bool


def read_frame(content: bytes) -> Frame | None:
    """Read the header of an 8-bit grayscale or colour JPEG; None for every other file.

    Raises:
        DataError: the file is cut off.
    """
    if not content.startswith(JPEG):
        return None
    position, at, interrupted, exif = 2, 0, False, False
    try:
        while True:
            marker = content[position + 1]
            if content[position] != 0xFF or marker in UNUSUAL:
                return None
            length = int.from_bytes(content[position + 2 : position + 4], "big")
            if marker in SEQUENTIAL or marker == PROGRESSIVE:
                at = position
            elif marker == RESTARTS:
                interrupted = interrupted or content[position + 4 : position + 6] != b"\0\0"
            elif marker == APP2:
                interrupted = interrupted or content.startswith(b"MPF", position + 4)
            elif marker == APP1:
                exif = exif or content.startswith(b"Exif", position + 4)
            elif marker == START_OF_SCAN:
                break
            if length < 2:
                return None
            position += 2 + length
        return _make_frame(content, at, position, interrupted=interrupted, exif=exif) if at else None
    except IndexError:
        raise DataError("the image file is cut off inside its header; replace or remove it") from None


def _make_frame(content: bytes, at: int, scan: int, *, interrupted: bool, exif: bool) -> Frame | None:
    bits, components = content[at + 4], content[at + 9]
    height, width = (int.from_bytes(content[at + start : at + start + 2], "big") for start in (5, 7))
    if bits != 8 or components not in (1, 3) or not (height and width):
        return None
    end = content.rfind(JPEG_END, scan)
    if end < 0:
        if not is_whole_but_for_end(content):
            raise DataError(f"the image file is cut off after {len(content):,} bytes; replace or remove it")
        return None  # whole, but without its end marker: decoded in full
    # With one component, rows are coded eight by eight whatever its sampling factor says.
    sampling = [content[at + 11 + 3 * number] & 15 for number in range(components)] if components == 3 else [1]
    return Frame(
        width=width,
        height=height,
        block_rows=8 * max(sampling),
        height_at=at + 5,
        end=end,
        one_pass=content[at + 1] in SEQUENTIAL and content[scan + 4] == components and not interrupted,
        exif=exif,
    )


def decode_region(content: np.ndarray, frame: Frame, box: Box, *, reduction: int = 1) -> np.ndarray:
    """Decode a region of the stored image; the rows below it are left alone where the file allows.

    Args:
        content: (length,) uint8, the file.
        box: in stored pixels; corner and size are multiples of `reduction`.
        reduction: 1, 2, 4 or 8, taken in the inverse DCT.

    Returns:
        (box.height / reduction, box.width / reduction, 3) uint8 RGB.

    Raises:
        DataError: the image cannot be decoded.
    """
    rows = box.y + box.height + CHROMA_ROWS
    if frame.one_pass and -(-rows // frame.block_rows) < -(-frame.height // frame.block_rows):
        content = _first_rows(content, frame, rows)
    direct = reduction == 1 and DIRECT_RGB is not None
    flags = DIRECT_RGB if direct else REDUCED.get(reduction, cv2.IMREAD_COLOR)
    image = decode(content, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    x, y, width, height = (value // reduction for value in box)
    region = image[y : y + height, x : x + width]
    if region.shape[:2] != (height, width):
        raise DataError(f"the image decodes to {image.shape[1]}x{image.shape[0]} pixels, unlike its header")
    return region if direct else cv2.cvtColor(region, cv2.COLOR_BGR2RGB)


def _first_rows(content: np.ndarray, frame: Frame, rows: int) -> np.ndarray:
    """Return a file of the image's first rows: its header names a smaller height.

    The decoder stops there, and entropy decoding is most of its work. Without the end marker it does not look for
    the file's end either, so it does not warn of the bytes left over.
    """
    file = np.zeros(frame.end + SPARE, dtype=np.uint8)
    file[: frame.end] = content[: frame.end]
    file[frame.height_at : frame.height_at + 2] = divmod(rows, 256)
    return file


def decode(content: np.ndarray, flags: int) -> np.ndarray:
    """Decode the bytes of an image file with OpenCV.

    Raises:
        DataError: OpenCV cannot decode it.
    """
    try:
        image = cv2.imdecode(content, flags)
    except cv2.error:
        image = None
    if image is None:
        is_array = content[: len(NUMPY)].tobytes() == NUMPY
        hint = "INPUT.FORMAT bands reads arrays of NumPy" if is_array else "replace or remove it"
        raise DataError(f"not an image that OpenCV can decode; {hint}")
    return image

"""What a JPEG or PNG file says of itself, without decoding: depth, channels, EXIF orientation, and whether it ends."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np

JPEG_END = b"\xff\xd9"
# Image data that no two images go on with alike, and as many zero bytes as tell of padding.
FILLINGS = (b"\x55" * 256, b"\xaa" * 256)
PADDING = 16
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
MAGICS = (JPEG, PNG, b"BM", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"P5", b"P6")

ORIENTATION = 0x0112  # the EXIF tag
START_OF_SCAN, APP1 = 0xDA, 0xE1
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour type -> channels, alpha not counted


@dataclass
class Header:
    """Facts of an image file.

    Attributes:
        channels: 1, 3 or 4 (CMYK); None when the format is not JPEG or PNG.
        bits: of a sample; None when unknown.
        orientation: of EXIF, 1 to 8; from 5 on, the image is shown with width and height exchanged.
        fault: "truncated-image", "broken-image" or None.
        detail: what is wrong.
        unended: a whole JPEG file that lacks its end marker; decode `with_end` of it.
    """

    channels: int | None = None
    bits: int | None = None
    orientation: int = 1
    fault: str | None = None
    detail: str = ""
    unended: bool = False


def has_image_magic(content: bytes) -> bool:
    """Whether a file begins as the image formats do that OpenCV reads."""
    return content.startswith(MAGICS) or content[4:8] == b"ftyp"


def read_header(content: bytes) -> Header:
    """Read the header of a JPEG or PNG file; nothing is known of other formats."""
    header = Header()
    try:
        if content.startswith(JPEG):
            _read_jpeg(content, header)
        elif content.startswith(PNG):
            _read_png(content, header)
    except (struct.error, IndexError, ValueError):
        header.fault, header.detail = "truncated-image", f"ends inside its header, after {len(content):,} bytes"
    return header


def _read_jpeg(content: bytes, header: Header) -> None:
    position = 2
    while True:
        position = content.index(b"\xff", position)  # decoders, too, skip stray bytes between segments
        marker = content[position + 1]
        if marker == 0xFF or marker in WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        body = content[position + 4 : position + 2 + length]
        if marker in FRAMES:
            header.bits, header.channels = body[0], body[5]
        elif marker == APP1 and body.startswith(b"Exif\0\0"):
            header.orientation = _read_orientation(body[6:])
        position += 2 + length
        if marker == START_OF_SCAN:
            break
    # Behind the header no other bytes can read FF D9; inside it an EXIF thumbnail has its own.
    if content.rfind(JPEG_END, position) >= 0:
        return
    if is_whole_but_for_end(content):
        header.unended = True
    else:
        header.fault, header.detail = "truncated-image", f"no end of image in its {len(content):,} bytes"


def with_end(content: bytes) -> bytes:
    """Return a JPEG file with an end marker behind its data; zeros that pad the file go."""
    data = content.rstrip(b"\0")
    if len(content) - len(data) < PADDING:
        data = content
    elif data.endswith(b"\xff"):
        data += b"\0"  # a stuffed byte of the image's data
    return (data[:-1] if data.endswith(b"\xff") else data) + JPEG_END


def is_whole_but_for_end(content: bytes) -> bool:
    """Whether a JPEG file lacks its end marker alone, and none of its image.

    A decoder that still needs data takes what stands before the end marker for it. So an image is whole if bytes put
    there change nothing.
    """
    ended = with_end(content)
    pixels = _pixels(ended)
    return pixels is not None and all(
        np.array_equal(pixels, _pixels(ended[: -len(JPEG_END)] + filling + JPEG_END)) for filling in FILLINGS
    )


def _pixels(content: bytes) -> np.ndarray | None:
    # Pillow prints nothing of data that is left over; OpenCV does.
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _read_png(content: bytes, header: Header) -> None:
    position = len(PNG)
    while True:
        length, name = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        if zlib.crc32(body, zlib.crc32(name)) != checksum:
            header.fault, header.detail = "broken-image", f"wrong checksum at byte {position:,}"
            return
        if name == b"IHDR":
            header.bits, header.channels = body[8], PNG_CHANNELS.get(body[9])
        elif name == b"eXIf":
            header.orientation = _read_orientation(body)
        elif name == b"IEND":
            return
        position += 12 + length


def _read_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 where there is none or the data is malformed."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * entry)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1

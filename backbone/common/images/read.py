"""Reading images with OpenCV: decoded, turned upright, always three channels of 8 bits."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError, ImageSizeError
from ..reading import read_bytes
from .bands import NUMPY, decode_bands
from .headers import read_header, with_end
from .jpeg import decode_jpeg


def read_image(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channel_order: str = "BGR",
    channels: int | None = None,
) -> np.ndarray:
    """Read an image of any common kind (grayscale, CMYK, 16 bit, with or without transparency).

    The EXIF orientation is applied. If `size` says that the annotations were made on the image as stored, it is not.

    Args:
        size: (width, height) that the annotations were made for.
        channel_order: "BGR" or "RGB"; "L" for gray; "bands" for all channels that the file has.
        channels: of "bands": how many there must be.

    Returns:
        (H, W, 3) uint8; of "L" (H, W, 1) uint8; of "bands" (H, W, C), uint8 or float32 as `decode_bands` says.

    Raises:
        DataError: missing, empty, cut off or no image.
        ImageSizeError: of another size than `size`.
    """
    data = np.frombuffer(read_bytes(path), dtype=np.uint8)
    return decode_image(data, str(path), size=size, channel_order=channel_order, channels=channels)


def decode_image(
    data: np.ndarray,
    source: str,
    *,
    size: tuple[int, int] | None = None,
    channel_order: str = "BGR",
    channels: int | None = None,
) -> np.ndarray:
    """Decode the bytes of an image file; see `read_image`."""
    if data.size == 0:
        raise DataError(f"{source}: the image file is empty (0 bytes); replace it or leave it out")
    # OpenCV would fill the missing part of a JPEG with gray.
    content = data.tobytes()
    header = read_header(content)
    if header.fault == "truncated-image":
        raise DataError(f"{source}: the image file is cut off; replace it or leave it out")
    if header.unended:
        data = np.frombuffer(with_end(content), dtype=np.uint8)
    if channel_order == "bands":
        image = decode_bands(data.tobytes(), source, channels)
        if size is not None and image.shape[1::-1] != tuple(size):
            raise ImageSizeError(_another_size(source, image, size))
        return image
    flags = cv2.IMREAD_GRAYSCALE if channel_order == "L" else cv2.IMREAD_COLOR
    is_colour = channel_order != "L"
    image = decode_jpeg(data, channel_order) if header.orientation == 1 and is_colour else None
    if image is None:
        image = _decode(data, flags, channel_order)
    if image is None:
        hint = "INPUT.FORMAT bands reads arrays of NumPy" if content.startswith(NUMPY) else "replace it or leave it out"
        raise DataError(f"{source}: not an image that OpenCV can decode; {hint}")
    if size is not None and image.shape[1::-1] != tuple(size):
        stored = _decode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION, channel_order)
        if stored is None or stored.shape[1::-1] != tuple(size):
            raise ImageSizeError(_another_size(source, image, size))
        image = stored
    return image if is_colour else image.reshape(*image.shape[:2], 1)


def _another_size(source: str, image: np.ndarray, size: tuple[int, int]) -> str:
    found = "x".join(map(str, image.shape[1::-1]))
    return (
        f"{source}: the image is {found} pixels, its JSON record says {size[0]}x{size[1]}; "
        "run tools/check_data.py on the set"
    )


def _decode(data: np.ndarray, flags: int, channel_order: str) -> np.ndarray | None:
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error:
        return None
    if image is None and data[:4].tobytes() == b"GIF8":
        image = _decode_gif(data)
        if image is not None and channel_order == "L":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image is not None and channel_order == "RGB" else image


def _decode_gif(data: np.ndarray) -> np.ndarray | None:
    """Decode the first picture of a GIF, which OpenCV before 4.11 cannot."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None

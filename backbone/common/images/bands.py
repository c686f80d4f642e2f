"""Images that are no colour pictures: gray ones, and those of any number of bands (NumPy files, TIFF)."""

from __future__ import annotations

import io

import cv2
import numpy as np

from ..errors import DataError

NUMPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*")


def decode_bands(content: bytes, source: str, channels: int | None = None) -> np.ndarray:
    """Decode an image with all its bands, in the order that the file has (colour: red, green, blue, alpha).

    Args:
        content: of a .npy file with (H, W, C), (H, W) or (with `channels`) (C, H, W), of a TIFF file whose pages are
            bands, or of any image that OpenCV reads.
        channels: how many bands there must be.

    Returns:
        (H, W, C), uint8 as it is, other kinds of numbers as float32.

    Raises:
        DataError: not such an image, values that are not finite, or another number of bands.
    """
    image = _numpy(content, source) if content.startswith(NUMPY) else _decoded(content, source)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or not image.size:
        raise DataError(f"{source}: an image is (height, width, bands), not {image.shape}")
    if channels is not None and image.shape[2] != channels:
        if not (content.startswith(NUMPY) and image.shape[0] == channels):
            raise DataError(f"{source}: has {image.shape[2]} bands, MODEL.PIXEL_MEAN has {channels} numbers")
        image = image.transpose(1, 2, 0)
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
        if not np.isfinite(image).all():
            raise DataError(f"{source}: has NaN or infinite values; replace them or leave the image out")
    return np.ascontiguousarray(image)


def _numpy(content: bytes, source: str) -> np.ndarray:
    try:
        # Objects would be unpickled, which can run code.
        image = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise DataError(
            f"{source}: not an array that NumPy reads without pickle: {str(error).splitlines()[0]}"
        ) from None
    if image.dtype.kind not in "buif":
        raise DataError(f"{source}: an image holds numbers, not {image.dtype}")
    return image


def _decoded(content: bytes, source: str) -> np.ndarray:
    data = np.frombuffer(content, dtype=np.uint8)
    try:
        pages = [cv2.imdecode(data, cv2.IMREAD_UNCHANGED)]
        if content.startswith(TIFF):
            pages = list(cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED)[1]) or pages
    except cv2.error:
        pages = [None]
    if any(page is None for page in pages):
        raise DataError(f"{source}: not an image that OpenCV can decode; save bands as .npy or as pages of a TIFF file")
    if len(pages) > 1:
        if len({page.shape for page in pages}) > 1 or pages[0].ndim != 2:
            raise DataError(f"{source}: its {len(pages)} pages are not bands of one size")
        return np.stack(pages, axis=2)
    (image,) = pages
    if content.startswith(TIFF) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 4:
        return _pillow(content, source)
    if image.ndim == 3 and image.shape[2] in (3, 4):
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    return image


def _pillow(content: bytes, source: str) -> np.ndarray:
    """Decode a TIFF file of four 8-bit bands, whose first three OpenCV multiplies by the fourth."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{source}: a TIFF file that Pillow cannot decode: {error}; save bands as .npy") from None


def picture_of(image: np.ndarray, channel_order: str) -> np.ndarray:
    """Return an image, (H, W, C) in `channel_order`, for people: (H, W, 3) BGR uint8; see `rgb_picture`."""
    return image if channel_order == "BGR" else np.ascontiguousarray(rgb_picture(image)[:, :, ::-1])


def rgb_picture(image: np.ndarray) -> np.ndarray:
    """Return an image for people: (H, W, 3) RGB uint8. Bands show their first three, or the first alone.

    Args:
        image: (H, W, C), RGB, gray or bands; what is not uint8 is scaled to its own range.
    """
    shown = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, [0, 0, 0]]
    if shown.dtype != np.uint8:
        low, high = float(shown.min()), float(shown.max())
        shown = ((shown - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return np.ascontiguousarray(shown)

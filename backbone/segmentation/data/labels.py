"""Label images: one class number a pixel, as palette or grayscale PNG, in PASCAL VOC's colours."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...common.errors import DataError
from ...common.files import write_whole
from ...common.reading import read_bytes
from ..evaluation import VOID

# Modes of Pillow with one number a pixel: palette, gray, black and white, 16 and 32 bits.
SINGLE_CHANNEL = ("P", "L", "1", "I", "I;16")


def read_label(path: Path, classes: Sequence[str]) -> np.ndarray:
    """Read a label image.

    Args:
        classes: names by label.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: missing, broken, in colours, or with a number that is neither a class nor VOID.
    """
    try:
        content = read_bytes(path)
        with warnings.catch_warnings():
            # It refuses twice as many pixels as it warns of.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        with image:
            if image.mode not in SINGLE_CHANNEL:
                raise DataError(
                    f"{path}: the label image has {len(image.getbands())} channels ({image.mode}); "
                    "it must hold one class number a pixel (palette or gray PNG)"
                )
            label = np.asarray(image)
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image that Pillow can read; replace it or leave it out") from None
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the label image cannot be read: {str(error).splitlines()[0]}") from None
    wrong = (label >= len(classes)) & (label != VOID)
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        # One more than there are: most often the list of names lacks the background, or labels count from 1.
        hint = "; labels count from 0: does the list of classes lack one?" if label[wrong].max() == len(classes) else ""
        raise DataError(
            f"{path}: label {label[y, x]} at x {x}, y {y} is none of the {len(classes)} classes "
            f"(0 to {len(classes) - 1}) and not {VOID} (void){hint}"
        )
    return label.astype(np.uint8)


@functools.lru_cache(maxsize=1)
def voc_palette() -> np.ndarray:
    """Return PASCAL VOC's colours, (256, 3) uint8 RGB: bit 3 k + c of a label is bit 7 - k of channel c."""
    labels = np.arange(256)[:, None]
    channels = np.arange(3)
    colours = np.zeros((256, 3), dtype=np.int64)
    for level in range(8):
        colours |= ((labels >> (3 * level + channels)) & 1) << (7 - level)
    return colours.astype(np.uint8)


def write_label(path: Path, label: np.ndarray) -> None:
    """Write a label image, (H, W) uint8, as a PNG with VOC's palette: the form of its evaluation server.

    Raises:
        RunError: it cannot be written.
    """
    image = Image.fromarray(label)
    image.putpalette(voc_palette().tobytes())
    write_whole(path, lambda temporary: image.save(temporary, format="PNG"))

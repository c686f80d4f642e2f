"""Label images: one class number or colour a pixel; written as PNG in PASCAL VOC's colours."""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...common.errors import DataError
from ...common.files import write_whole
from ...common.reading import read_bytes
from ..evaluation import VOID
from .form import LabelForm

# Modes of Pillow with one number a pixel: palette, gray, black and white, 16 and 32 bits.
SINGLE_CHANNEL = ("P", "L", "1", "I", "I;16")
# Formats of Pillow that do not keep every number.
LOSSY = ("JPEG", "MPO")


def read_label(path: Path, form: LabelForm) -> np.ndarray:
    """Read a label image.

    Args:
        form: what its numbers or colours stand for. With colours, gray images are read by their numbers, others by
            colour.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: missing, broken, in colours that nothing names, or with a number or colour that has no label.
    """
    try:
        content = read_bytes(path)
        with warnings.catch_warnings():
            # It refuses twice as many pixels as it warns of.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        with image:
            if image.format in LOSSY:
                raise DataError(f"{path}: is a {image.format} file, which changes labels; save label images as PNG")
            values, label = _decoded(image, path, form)
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image that Pillow can read; replace it or leave it out") from None
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: the label image cannot be read: {str(error).splitlines()[0]}") from None
    if label.min() < 0:
        raise DataError(f"{path}: {_wrong(values, label, form)}")
    return label.astype(np.uint8)


def _decoded(image: Image.Image, path: Path, form: LabelForm) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers (H, W) or colours (H, W, 3), and the labels that they stand for, (H, W) int16."""
    if not len(form.colours):
        if image.mode not in SINGLE_CHANNEL:
            raise DataError(
                f"{path}: the label image has {len(image.getbands())} channels ({image.mode}); it must hold one class "
                "number a pixel (palette or gray PNG), or the list of classes must have their colours (DATA.CLASSES)"
            )
        return (values := np.asarray(image)), form.of_numbers(values)
    if image.mode in ("RGB", "RGBA"):
        values = np.asarray(image)[:, :, :3]
        return values, form.of_colours(values)
    if image.mode == "P":
        # Another order of the palette than that of the list is as good.
        entries = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(entries)] = entries
        if (entries != entries[:, :1]).any():
            values = np.asarray(image)
            return palette[values], form.of_colours(palette)[values]
    if image.mode not in SINGLE_CHANNEL:
        raise DataError(f"{path}: the label image is of mode {image.mode}; it must hold colours (RGB) or class numbers")
    return (values := np.asarray(image)), form.of_numbers(values)


def _wrong(values: np.ndarray, label: np.ndarray, form: LabelForm) -> str:
    """Return in words what the first pixel without a label has."""
    y, x = np.argwhere(label < 0)[0]
    if values.ndim == 3:
        colour = " ".join(map(str, values[y, x].tolist()))
        return f"the colour {colour} at x {x}, y {y} is none of the {len(form.colours)} in the list of classes"
    known, hint = len(form.classes), form.hint
    # One more than there are: most often the list of names lacks the background, or labels count from 1.
    if form.table[known] < 0 and values[label < 0].max() == known:
        hint = (
            "; labels count from 0: does the list of classes lack one, or is 0 void and 1 the first class "
            "(DATA.REDUCE_ZERO_LABEL)?"
        )
    return (
        f"label {values[y, x]} at x {x}, y {y} is none of the {known} classes (0 to {known - 1}) and not {VOID} (void)"
        f"{hint}"
    )


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

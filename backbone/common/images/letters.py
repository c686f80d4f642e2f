"""Words in any script for pictures: with Pillow in DejaVu Sans and the machine's fonts, else with OpenCV 5's own font.

cv2.putText of OpenCV 4 knows ASCII alone.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# A code point that is no character: every font draws it as the box of a missing glyph.
MISSING = "\uffff"
UNKNOWN = "\ufffd"
# Not drawn, so that no font needs a glyph for them: blanks, joiners and marks of direction.
SILENT = frozenset(" \u00a0\u200b\u200c\u200d\u200e\u200f\ufe0e\ufe0f")


def lettering(words: str, size: int, *, otherwise: str = "?") -> np.ndarray:
    """Return words in one line as (height, width) uint8, 255 where they are; all of a size have the same height.

    Args:
        size: of the font, in pixels.
        otherwise: what is drawn where no font has all characters of `words`.
    """
    words = "".join(" " if letter.isspace() else letter for letter in words)
    words = "".join(letter if letter.isprintable() or letter in SILENT else UNKNOWN for letter in words)
    return _drawn(words, otherwise, size)


def put_letters(canvas: np.ndarray, letters: np.ndarray, left: int, top: int) -> None:
    """Draw letters of `lettering` in black on (H, W, 3) uint8; what does not fit is cut off."""
    part = canvas[top : top + letters.shape[0], left : left + letters.shape[1]]
    ink = letters[: part.shape[0], : part.shape[1], None] / np.float32(255)
    part[:] = np.round(part * (1 - ink))


@lru_cache(maxsize=4096)
def _drawn(words: str, otherwise: str, size: int) -> np.ndarray:
    for path in _fonts():
        if _has_all(path, words):
            return _with_pillow(words, path, size)
    drawn = _with_opencv(words, size)
    return drawn if drawn is not None else _drawn(otherwise, "?", size)


def _fonts() -> Iterator[str]:
    """Yield files of fonts, "" for Pillow's own: matplotlib's DejaVu Sans, then the machine's fonts by name."""
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        yield str(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")
    yield ""
    yield from _machine_fonts()


@cache
def _machine_fonts() -> tuple[str, ...]:
    try:
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return ()
    # Upright and regular ones first; a font named "last resort" has pictures of scripts for glyphs.
    files = [path for path in findSystemFonts() if "lastresort" not in os.path.basename(path).lower()]
    return tuple(sorted(files, key=lambda path: ("regular" not in path.lower(), path)))


@lru_cache(maxsize=64)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
    except OSError:
        return None


def _has_all(path: str, words: str) -> bool:
    return all(_has(path, letter) for letter in set(words) - SILENT)


@cache
def _has(path: str, letter: str) -> bool:
    font = _font(path, 12)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return False
    return bytes(font.getmask(letter)) != bytes(font.getmask(MISSING))


def _with_pillow(words: str, path: str, size: int) -> np.ndarray:
    font = _font(path, size)
    ascent, descent = font.getmetrics()
    canvas = Image.new("L", (max(1, math.ceil(font.getlength(words))), ascent + descent))
    ImageDraw.Draw(canvas).text((0, ascent), words, 255, font, anchor="ls")
    return np.asarray(canvas)


def _with_opencv(words: str, size: int) -> np.ndarray | None:
    """Return the words in the font that OpenCV 5 brings; None with OpenCV 4, or where it lacks a character."""
    if not hasattr(cv2, "FontFace"):
        return None
    font = cv2.FontFace("uni")
    missing = _opencv_glyph(MISSING, font)
    if any(np.array_equal(_opencv_glyph(letter, font), missing) for letter in set(words) - SILENT - {"?"}):
        return None
    height = round(1.2 * size)
    canvas = np.zeros((height, 2 * size * (len(words) + 1), 3), dtype=np.uint8)
    (end, _), _ = cv2.putText(canvas, words, (0, size), (255, 255, 255), font, size)
    return canvas[:, : max(1, end), 0].copy()


def _opencv_glyph(letter: str, font: cv2.FontFace) -> np.ndarray:
    canvas = np.zeros((32, 64, 3), dtype=np.uint8)
    cv2.putText(canvas, letter, (4, 24), (255, 255, 255), font, 20)
    return canvas

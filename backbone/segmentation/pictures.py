"""Pictures of labels over images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..common.images import lettering, put_letters
from .data.labels import voc_palette
from .evaluation import VOID

SHARE = 0.6  # of the label's colour
BACKGROUND = ("background", "bg", "unlabeled", "unlabelled", "other", "others", "none")  # shown as the image is
LEAST_SIDE = 320
LINE, LETTERS, GAP = 20, 14, 4  # pixels of a line of text, of its letters, and between two panels
WRONG = (214, 39, 40)
PALE = 90  # gray that black is shown as, where errors are


def background_of(classes: Sequence[str]) -> int:
    """Return the label of the background; -1 where label 0 is a class like the others."""
    return 0 if classes[0].strip(" _").casefold() in BACKGROUND else -1


def colours_of(classes: Sequence[str]) -> np.ndarray:
    """Return the colour of each label, (256, 3) uint8 RGB: VOC's, void white; a class 0 takes the first free one."""
    colours = voc_palette().copy()
    if background_of(classes) < 0:
        colours[0] = colours[min(len(classes), VOID - 1)]
    colours[VOID] = 255
    return colours


def overlay(image: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return an image, (H, W, 3) RGB uint8, with the colours of its labels, (H, W), over it."""
    mixed = (1 - SHARE) * image + SHARE * colours_of(classes)[label]
    kept = label.astype(int) == background_of(classes)
    return np.where(kept[:, :, None], image, mixed.round().astype(np.uint8))


def errors(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return an image in pale gray, wrong pixels in red and void ones white, (H, W, 3) RGB uint8."""
    gray = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    shown = (PALE + (1 - PALE / 255) * gray).round().astype(np.uint8)
    shown[predicted != truth] = WRONG
    shown[truth == VOID] = 255
    return shown


def comparison(
    image: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None, classes: Sequence[str], caption: str = ""
) -> np.ndarray:
    """Return prediction, and where it is known truth and errors, over an image, side by side; RGB.

    A caption stands above, the name of each panel over it, and a legend of the classes that occur below.
    """
    factor = max(1.0, LEAST_SIDE / min(image.shape[:2]))
    panels = {"prediction": overlay(image, predicted, classes)}
    if truth is not None:
        panels |= {"truth": overlay(image, truth, classes), "errors": errors(image, predicted, truth)}
    parts = []
    for name, panel in panels.items():
        drawn = cv2.resize(panel, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        drawn = np.concatenate([_line(name, drawn.shape[1]), drawn])
        parts += [drawn, np.full((drawn.shape[0], GAP, 3), 255, dtype=np.uint8)]
    picture = np.concatenate(parts[:-1], axis=1)
    width = picture.shape[1]
    labels = {int(value) for label in (predicted, truth) if label is not None for value in np.unique(label)}
    entries = [
        (classes[label], colours_of(classes)[label]) for label in sorted(labels - {VOID, background_of(classes)})
    ]
    if truth is not None and (truth != predicted)[truth != VOID].any():
        entries.append(("wrong", np.array(WRONG)))
    if VOID in labels:
        entries.append(("void", np.full(3, 255)))
    head = [_line(caption, width)] if caption else []
    return np.concatenate([*head, picture, _legend(width, entries)])


def quarters(
    image: np.ndarray | None, predicted: np.ndarray, truth: np.ndarray, classes: Sequence[str], side: int
) -> np.ndarray:
    """Return image, prediction, truth and errors in two rows, each with its name; their longer side is `side`. RGB.

    Without an image, labels are drawn alone.
    """
    blank = np.full((*truth.shape, 3), 255, dtype=np.uint8) if image is None else image
    panels = {
        **({} if image is None else {"image": image}),
        "prediction": overlay(blank, predicted, classes),
        "truth": overlay(blank, truth, classes),
        "errors": errors(blank, predicted, truth),
    }
    factor = side / max(truth.shape)
    filter_ = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    size = tuple(max(1, round(length * factor)) for length in truth.shape[::-1])
    drawn = [
        np.concatenate([_line(name, size[0]), cv2.resize(panel, size, interpolation=filter_)])
        for name, panel in panels.items()
    ]
    gap = np.full((drawn[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    drawn += [np.full_like(drawn[0], 255)] * (len(drawn) % 2)
    return np.concatenate([np.concatenate([one, gap, other], axis=1) for one, other in zip(drawn[::2], drawn[1::2])])


def caption_of(name: str, miou: float | None = None) -> str:
    """Return what stands over a picture: the image's name, and its mIoU where it is known."""
    return name if miou is None or miou != miou else f"{name}   mIoU {100 * miou:.1f} %"


def _line(words: str, width: int) -> np.ndarray:
    """Return a white line with words in black, (LINE, width, 3); a name that is too long loses its beginning."""
    line = np.full((LINE, width, 3), 255, dtype=np.uint8)
    letters = lettering(words, LETTERS)
    while letters.shape[1] > width - 8 and len(words) > 1:
        words = words[1:]
        letters = lettering(f"…{words}", LETTERS)
    put_letters(line, letters, left=4, top=0)
    return line


def _legend(width: int, entries: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Return lines of coloured squares with names, (H, width, 3)."""
    places, left, row = [], 4, 0
    for name, colour in entries:
        letters = lettering(name, LETTERS)
        needed = LINE + letters.shape[1] + 12
        if left + needed > width and left > 4:
            left, row = 4, row + 1
        places.append((letters, colour, left, row))
        left += needed
    strip = np.full(((row + 1) * LINE + 4, width, 3), 255, dtype=np.uint8)
    for letters, colour, left, row in places:
        top = 3 + row * LINE
        cv2.rectangle(strip, (left, top), (left + 12, top + 12), colour.tolist(), cv2.FILLED)
        cv2.rectangle(strip, (left, top), (left + 12, top + 12), (128, 128, 128), 1)
        put_letters(strip, letters, left + 18, row * LINE + 1)
    return strip

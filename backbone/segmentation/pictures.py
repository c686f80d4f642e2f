"""Pictures of labels over images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .data.labels import voc_palette
from .evaluation import VOID

SHARE = 0.6  # of the label's colour
BACKGROUND = ("background", "bg", "unlabeled", "unlabelled", "other", "others", "none")  # shown as the image is
LEAST_SIDE = 320
LINE = 18  # pixels of a line of the legend
FONT = cv2.FONT_HERSHEY_SIMPLEX


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


def comparison(
    image: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None, classes: Sequence[str]
) -> np.ndarray:
    """Return prediction (left) and truth (right) over an image, with a legend of the classes that occur; RGB."""
    factor = max(1.0, LEAST_SIDE / min(image.shape[:2]))
    shown = [predicted] if truth is None else [predicted, truth]
    panels = []
    for label in shown:
        drawn = overlay(image, label, classes)
        panels.append(cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR))
    gap = np.full((panels[0].shape[0], 4, 3), 255, dtype=np.uint8)
    picture = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    present = sorted({int(value) for label in shown for value in np.unique(label)} - {VOID, background_of(classes)})
    return np.concatenate([picture, _legend(picture.shape[1], present, classes)])


def _legend(width: int, labels: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """Return lines of coloured squares with names, (H, width, 3)."""
    places, left, row = [], 4, 0
    for label in labels:
        needed = LINE + cv2.getTextSize(classes[label], FONT, 0.4, 1)[0][0] + 12
        if left + needed > width and left > 4:
            left, row = 4, row + 1
        places.append((label, left, row))
        left += needed
    strip = np.full(((row + 1) * LINE + 4, width, 3), 255, dtype=np.uint8)
    for label, left, row in places:
        top = 4 + row * LINE
        colour = tuple(int(value) for value in colours_of(classes)[label])
        cv2.rectangle(strip, (left, top), (left + 11, top + 11), colour, cv2.FILLED)
        cv2.putText(strip, classes[label], (left + 16, top + 10), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return strip

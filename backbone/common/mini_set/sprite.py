"""One object, drawn large, shaded, and brought down to its size."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .pen import Pen
from .shapes import SHAPES
from .texture import make_paints

FINE_SIDE = 32  # smaller objects are drawn at 4 times their size, larger ones at twice
MAX_STRETCH = 1.25
MAX_SHEAR = 0.15


class Sprite(NamedTuple):
    """An object cut out tightly.

    Attributes:
        colour: (h, w, 3), float32, BGR within [0, 255].
        alpha: (h, w), float32, the share of each pixel that the object covers.
    """

    colour: np.ndarray
    alpha: np.ndarray

    @property
    def solid(self) -> np.ndarray:
        """(h, w), bool: pixels that count as the object's."""
        return self.alpha >= 0.5


def draw_sprite(name: str, side: float, rng: np.random.Generator) -> Sprite:
    """Draw an object of class `name` about `side` pixels long, turned, mirrored, stretched and sheared at random."""
    scale = 4 if side < FINE_SIDE else 2
    linear = _pose(rng, SHAPES[name].turn) * (side / 2 * scale)
    reach = np.abs(linear).sum(axis=1).max()
    size = (int(np.ceil(2 * reach / scale)) + 4) * scale
    matrix = np.column_stack([linear, (size / 2, size / 2)])
    pen = Pen(matrix, size, make_paints(rng, *_object_coordinates(linear, size)))
    SHAPES[name].draw(pen, rng)
    alpha = pen.silhouette.astype(np.float32) / 255
    colour = _shade(pen.colour.astype(np.float32), alpha, side * scale, rng)
    return _shrink(colour, alpha, scale)


def _pose(rng: np.random.Generator, turn: float) -> np.ndarray:
    angle = np.radians(rng.uniform(-turn, turn))
    stretch = np.exp(rng.uniform(-1, 1) * np.log(MAX_STRETCH) / 2)
    mirror = -1 if rng.random() < 0.5 else 1
    rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    shear = np.array([(1, rng.uniform(-MAX_SHEAR, MAX_SHEAR)), (0, 1)])
    return rotation @ shear @ np.diag([mirror * stretch, 1 / stretch])


def _object_coordinates(linear: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linalg.inv(linear).astype(np.float32)
    ticks = np.arange(size, dtype=np.float32) - size / 2
    right, down = ticks[None, :], ticks[:, None]
    return inverse[0, 0] * right + inverse[0, 1] * down, inverse[1, 0] * right + inverse[1, 1] * down


def _shade(colour: np.ndarray, alpha: np.ndarray, side: float, rng: np.random.Generator) -> np.ndarray:
    """Darken towards the rim and away from a light that stands on a random side."""
    size = alpha.shape[0]
    window = int(side * 0.16) | 1
    rim = np.minimum(cv2.blur(alpha, (window, window)) * 1.3, 1.0)
    ticks = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = ticks[None, :] * np.cos(angle) + ticks[:, None] * np.sin(angle)
    depth, slope = rng.uniform(0.25, 0.6), rng.uniform(0.05, 0.25)
    return colour * ((1 - depth + depth * rim) * (1 + slope * light))[:, :, None].astype(np.float32)


def _shrink(colour: np.ndarray, alpha: np.ndarray, scale: int) -> Sprite:
    """Average blocks of pixels; colours are weighted by coverage, so nothing from outside the object bleeds in."""
    size = (alpha.shape[1] // scale, alpha.shape[0] // scale)
    covered = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    weighted = cv2.resize(colour * alpha[:, :, None], size, interpolation=cv2.INTER_AREA)
    x, y, width, height = cv2.boundingRect((covered > 0).astype(np.uint8))
    window = np.s_[y : y + height, x : x + width]
    tight = covered[window]
    return Sprite(np.clip(weighted[window] / np.maximum(tight, 1e-3)[:, :, None], 0, 255), tight)

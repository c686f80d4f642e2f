"""What stands behind the objects: texture, light, and shapes that belong to no class."""

from __future__ import annotations

import cv2
import numpy as np

from .texture import colour, mix, noise

SATURATION = (0.05, 0.5)
VALUE = (0.3, 0.85)


def draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a background, (height, width, 3), float32, BGR within [0, 255]."""
    draw = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    image = draw(rng, height, width)
    for _ in range(rng.integers(3, 10)):
        image = _add_distractor(rng, image)
    return image


def _tone(rng: np.random.Generator) -> np.ndarray:
    return colour(rng, SATURATION, VALUE)


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return mix(_tone(rng), _tone(rng), noise(rng, height, width, fall=rng.uniform(0.2, 1.0)))


def _slope(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    right, down = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    ramp = right[None, :] * np.cos(angle) + down[:, None] * np.sin(angle) + 0.5
    rough = ramp + 0.35 * (noise(rng, height, width, coarsest=16) - 0.5)
    return mix(_tone(rng), _tone(rng), np.clip(rough, 0, 1).astype(np.float32))


def _landscape(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    sky = mix(_tone(rng), colour(rng, (0.05, 0.4), (0.7, 0.95)), _rows(height, width))
    ground = mix(_tone(rng), _tone(rng), noise(rng, height, width, coarsest=32, fall=0.3))
    hills = cv2.resize(rng.random((1, 6), dtype=np.float32), (width, 1), interpolation=cv2.INTER_CUBIC)
    horizon = height * (rng.uniform(0.25, 0.6) + 0.15 * hills)
    below = np.clip(np.arange(height, dtype=np.float32)[:, None] - horizon, 0, 1)
    return mix(sky + 25 * (noise(rng, height, width)[:, :, None] - 0.5), ground, below)


def _planks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    angle, period = rng.uniform(0, np.pi), rng.uniform(14, 40)
    right, down = np.arange(width)[None, :], np.arange(height)[:, None]
    place = (right * np.cos(angle) + down * np.sin(angle)) / period
    shades = rng.random(64)[np.floor(place).astype(int) % 64]
    grain = noise(rng, height, width, coarsest=16, fall=0.4)
    seam = 1 - 0.35 * (place % 1 < 2 / period)
    planks = mix(_tone(rng), _tone(rng), np.clip(0.5 * shades + 0.5 * grain, 0, 1).astype(np.float32))
    return planks * seam[:, :, None].astype(np.float32)


def _pebbles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image = _clouds(rng, height, width)
    first, second, largest = _tone(rng), _tone(rng), int(rng.integers(4, 12))
    for _ in range(180):
        centre = rng.uniform((0, 0), (width, height)).astype(int).tolist()
        tone = first + (second - first) * rng.random() + rng.normal(0, 12)
        cv2.ellipse(image, centre, rng.integers(2, largest, 2).tolist(), rng.uniform(0, 180), 0, 360, tone.tolist(), -1)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 2.0))


def _rows(height: int, width: int) -> np.ndarray:
    return np.repeat(np.linspace(0, 1, height, dtype=np.float32)[:, None], width, axis=1)


BACKGROUNDS = (_clouds, _landscape, _slope, _planks, _pebbles)


def _add_distractor(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Lay a blurred blob, line or scrap over the image."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.float32)
    begin, end = rng.uniform((0, 0), (width, height), (2, 2)).astype(np.int32)
    kind = rng.integers(3)
    if kind == 0:
        cv2.ellipse(layer, begin.tolist(), rng.integers(4, 28, 2).tolist(), rng.uniform(0, 180), 0, 360, 1.0, -1)
    elif kind == 1:
        cv2.line(layer, begin.tolist(), end.tolist(), 1.0, int(rng.integers(1, 6)))
    else:
        scrap = begin + rng.normal(0, rng.uniform(6, 22), (int(rng.integers(4, 8)), 2))
        cv2.fillPoly(layer, [scrap.astype(np.int32)], 1.0)
    layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.8, 3.5))
    return mix(image, _tone(rng), layer * rng.uniform(0.35, 0.9))


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light, blur and noise as a camera would add; return (H, W, 3), uint8, BGR."""
    height, width = image.shape[:2]
    right, down = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    tilt = rng.uniform(-0.15, 0.15, 2)
    lit = image * (rng.uniform(0.85, 1.1) * (1 + tilt[0] * right + tilt[1] * down))[:, :, None].astype(np.float32)
    blurred = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.2, 0.65))
    grain = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(1.5, 6.0)
    return np.clip(blurred + grain + 0.5, 0, 255).astype(np.uint8)

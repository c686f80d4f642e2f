"""Colours, noise and patterns."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

PATTERNS = ("plain", "stripes", "checks", "dots", "mottled")


def colour(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.25, 1.0), value: tuple[float, float] = (0.35, 1.0)
) -> np.ndarray:
    """Return a random BGR colour of any hue, (3,), float32 within [0, 255]."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array((blue, green, red), np.float32) * 255


def contrasting_colour(rng: np.random.Generator, other: np.ndarray, distance: float = 110.0) -> np.ndarray:
    """Return a random BGR colour at least about `distance` away from another one."""
    candidates = [colour(rng) for _ in range(6)]
    far = [candidate for candidate in candidates if np.abs(candidate - other).sum() >= distance]
    return far[0] if far else max(candidates, key=lambda candidate: float(np.abs(candidate - other).sum()))


def noise(rng: np.random.Generator, height: int, width: int, coarsest: int = 64, fall: float = 0.8) -> np.ndarray:
    """Return noise of several octaves, (height, width), float32 within [0, 1].

    Args:
        coarsest: cell of the coarsest octave in pixels; each further octave halves it.
        fall: exponent of the amplitude over the cell; larger is smoother.
    """
    total = np.zeros((height, width), np.float32)
    cell = coarsest
    while cell >= 2:
        grid = rng.random((height // cell + 2, width // cell + 2), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * cell**fall
        cell //= 2
    return cv2.normalize(total, None, 0.0, 1.0, cv2.NORM_MINMAX)


def mix(first: np.ndarray, second: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Blend two colours, (3,), or images, (H, W, 3), by `amount`, (H, W) within [0, 1]; float32."""
    return first + (second - first) * amount[:, :, None]


def pattern(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return a random pattern over object coordinates `across` and `down`, (S, S); float32 within [0, 1]."""
    kind = PATTERNS[rng.integers(len(PATTERNS))]
    angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(2.0, 4.0), rng.uniform(0, 1)
    turned = (across * np.cos(angle) + down * np.sin(angle)) * frequency + phase
    crossed = (down * np.cos(angle) - across * np.sin(angle)) * frequency + phase
    if kind == "plain":
        return np.zeros_like(across)
    if kind == "mottled":
        return noise(rng, *across.shape, coarsest=max(across.shape[0] // 4, 4))
    if kind == "stripes":
        return (turned % 1 < 0.45).astype(np.float32)
    if kind == "checks":
        return ((turned % 1 < 0.5) ^ (crossed % 1 < 0.5)).astype(np.float32)
    return ((turned % 1 - 0.5) ** 2 + (crossed % 1 - 0.5) ** 2 < 0.08).astype(np.float32)


def make_paints(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> dict[str, np.ndarray]:
    """Return the paints of one object over its coordinates `across` and `down`, (S, S); see Pen."""
    body = colour(rng)
    second = contrasting_colour(rng, body)
    return {
        "body": _textured(rng, body, across, down),
        "second": _textured(rng, second, across, down),
        "accent": contrasting_colour(rng, body, distance=200).astype(np.uint8),
        "dark": colour(rng, (0, 0.6), (0.05, 0.25)).astype(np.uint8),
        "light": colour(rng, (0, 0.25), (0.85, 1.0)).astype(np.uint8),
    }


def _textured(rng: np.random.Generator, base: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    other = mix(base, colour(rng), np.full((1, 1), rng.uniform(0.3, 0.6), np.float32))
    grain = rng.uniform(0.88, 1.12, across.shape).astype(np.float32)[:, :, None]
    painted = mix(base, other, pattern(rng, across, down).astype(np.float32)) * grain
    return np.clip(painted, 0, 255).astype(np.uint8)

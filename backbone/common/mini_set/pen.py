"""Filling polygons given in an object's own coordinates: x right, y down, the object within [-1, 1] on both axes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

Paint = np.ndarray
"""A flat BGR colour, (3,), or an image as large as the pen's, (S, S, 3); uint8."""

SUBPIXEL_BITS = 4


class Pen:
    """Draws one object on a square of `size` pixels.

    Args:
        matrix: (2, 3), from object coordinates to pixels.
        size: side of the square.
        paints: what the shapes name: "body" and "second" (textured), "accent", "dark", "light" (flat).

    Attributes:
        colour: (size, size, 3), uint8, BGR.
        silhouette: (size, size), uint8, 255 where anything was filled.
    """

    def __init__(self, matrix: np.ndarray, size: int, paints: dict[str, Paint]) -> None:
        self.matrix = matrix
        self.paints = paints
        self.colour = np.zeros((size, size, 3), np.uint8)
        self.silhouette = np.zeros((size, size), np.uint8)

    def fill(self, points: ArrayLike, paint: str) -> np.ndarray:
        """Fill the polygon `points`, (N, 2), add it to the silhouette, return its region, (size, size): 0 or 255."""
        region = self._region(points)
        self._paint(region, paint)
        cv2.bitwise_or(self.silhouette, region, dst=self.silhouette)
        return region

    def detail(self, points: ArrayLike, paint: str, inside: np.ndarray) -> None:
        """Fill the part of the polygon that lies inside a region; the silhouette stays as it is."""
        self._paint(cv2.bitwise_and(self._region(points), inside), paint)

    def _region(self, points: ArrayLike) -> np.ndarray:
        pixels = np.asarray(points) @ self.matrix[:, :2].T + self.matrix[:, 2]
        fixed = np.round(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
        region = np.zeros_like(self.silhouette)
        cv2.fillPoly(region, [fixed], 255, lineType=cv2.LINE_8, shift=SUBPIXEL_BITS)
        return region

    def _paint(self, region: np.ndarray, name: str) -> None:
        paint = self.paints[name]
        if paint.ndim == 3:
            cv2.copyTo(paint, region, self.colour)
        else:
            self.colour[region > 0] = paint


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Corners of a rectangle, (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def ellipse(
    x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360, points: int = 28
) -> np.ndarray:
    """Points of an ellipse, or of its arc from `start` to `stop` degrees (0 right, 90 down), (points, 2)."""
    angles = np.radians(np.linspace(start, stop, points))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def line(x0: float, y0: float, x1: float, y1: float, width: float) -> np.ndarray:
    """A segment as a rectangle of the given width, (4, 2)."""
    begin, end = np.array((x0, y0)), np.array((x1, y1))
    along = end - begin
    across = np.array((-along[1], along[0])) * (width / 2 / max(float(np.hypot(*along)), 1e-6))
    return np.array([begin + across, end + across, end - across, begin - across])


def band(x: float, y: float, rx: float, ry: float, width: float, start: float, stop: float) -> np.ndarray:
    """The band of an elliptic arc whose outer radii are `rx` and `ry`, (48, 2)."""
    outer = ellipse(x, y, rx, ry, start, stop, points=24)
    inner = ellipse(x, y, rx - width, ry - width, stop, start, points=24)
    return np.concatenate([outer, inner])

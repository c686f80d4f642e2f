"""What the eight classes look like: one function each, drawing with a pen in object coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .pen import Pen, band, box, ellipse, line


class Shape(NamedTuple):
    """A class of objects: its COCO supercategory, how far it turns from upright in degrees, and how it is drawn."""

    supercategory: str
    turn: float
    draw: Callable[[Pen, np.random.Generator], None]


def _draw_car(pen: Pen, rng: np.random.Generator) -> None:
    rear, front = rng.uniform(-0.85, -0.6), rng.uniform(0.45, 0.65)
    roof = rng.uniform(-0.55, -0.42)
    pen.fill([(rear, 0.0), (rear + 0.25, roof), (front - 0.35, roof), (front, 0.0)], "body")
    side = pen.fill([(-1, 0.05), (-0.95, -0.05), (0.8, -0.05), (1, 0.1), (1, 0.4), (-1, 0.4)], "body")
    pillar = (rear + front) / 2 + rng.uniform(-0.1, 0.1)
    top, bottom = roof + 0.09, -0.07
    behind, ahead = pillar - 0.05, pillar + 0.05
    pen.fill([(rear + 0.15, bottom), (rear + 0.3, top), (behind, top), (behind, bottom)], "light")
    pen.fill([(ahead, bottom), (ahead, top), (front - 0.4, top), (front - 0.14, bottom)], "light")
    pen.detail(line(pillar, -0.05, pillar, 0.4, 0.035), "dark", side)
    pen.detail(box(pillar + 0.06, 0.05, pillar + 0.2, 0.1), "dark", side)
    pen.detail(box(-1, 0.27, 1, 0.34), "accent", side)
    pen.detail(ellipse(0.92, 0.1, 0.1, 0.08), "light", side)
    for x in (-0.55, 0.55):
        pen.fill(ellipse(x, 0.4, 0.26, 0.26), "dark")
        pen.fill(ellipse(x, 0.4, 0.12, 0.12), "light")


def _draw_boat(pen: Pen, rng: np.random.Generator) -> None:
    mast = rng.uniform(-0.15, 0.1)
    main = pen.fill([(mast, -0.92), (mast, 0.22), (0.85, 0.22)], "second")
    for y in (-0.45, -0.1):
        pen.detail(line(-1, y, 1, y + 0.05, 0.05), "dark", main)
    if rng.random() < 0.7:
        pen.fill([(mast, -0.75), (mast, 0.22), (-0.75, 0.22)], "light")
    pen.fill(line(mast, -1, mast, 0.45, 0.08), "dark")
    pen.fill([(mast, -1.0), (mast, -0.8), (mast - 0.3, -0.9)], "accent")
    hull = pen.fill([(-1, 0.35), (1, 0.35), (0.85, 0.6), (0.6, 0.9), (-0.6, 0.9), (-0.8, 0.65)], "body")
    pen.detail(box(-1, 0.35, 1, 0.45), "accent", hull)
    for x in np.linspace(-0.45, 0.45, int(rng.integers(2, 5))):
        pen.detail(ellipse(x, 0.62, 0.085, 0.085), "dark", hull)


def _draw_fish(pen: Pen, rng: np.random.Generator) -> None:
    height = rng.uniform(0.42, 0.55)
    tail = pen.fill([(-0.4, 0), (-1, -0.5), (-0.82, 0), (-1, 0.5)], "second")
    for y in (-0.3, 0, 0.3):
        pen.detail(line(-0.4, 0, -1, y, 0.04), "dark", tail)
    pen.fill([(-0.3, -0.3), (-0.15, -height - 0.28), (0.4, -height + 0.1)], "second")
    pen.fill([(-0.1, 0.3), (-0.15, height + 0.22), (0.25, height - 0.1)], "second")
    body = pen.fill(ellipse(0.22, 0, 0.78, height), "body")
    for x in np.linspace(-0.35, 0.2, int(rng.integers(2, 5))):
        pen.detail(band(x - 0.3, 0, 0.4, 0.8, 0.08, -70, 70), "accent", body)
    pen.detail(band(0.25, 0, 0.3, 0.5, 0.05, -60, 60), "dark", body)
    pen.detail(line(0.8, 0.18, 1, 0.1, 0.05), "dark", body)
    pen.detail(ellipse(0.7, -0.12, 0.14, 0.14), "light", body)
    pen.detail(ellipse(0.73, -0.12, 0.07, 0.07), "dark", body)


def _draw_tree(pen: Pen, rng: np.random.Generator) -> None:
    trunk = pen.fill(box(-0.14, 0.5, 0.14, 1), "second")
    for x in (-0.06, 0.05):
        pen.detail(line(x, 0.5, x, 1, 0.03), "dark", trunk)
    teeth = int(rng.integers(3, 6))
    for top, bottom, reach in ((0.0, 0.65, 0.72), (-0.5, 0.22, 0.56), (-1.0, -0.22, 0.4)):
        tier = pen.fill(_jagged_triangle(top, bottom, reach, teeth), "body")
        pen.detail(_jagged_triangle(top + 0.5, bottom + 0.25, reach * 1.1, teeth), "dark", tier)
        pen.detail(_jagged_triangle(top + 0.62, bottom + 0.34, reach * 1.1, teeth), "body", tier)
        for x in rng.uniform(-reach / 2, reach / 2, 2):
            pen.detail(ellipse(x, bottom - rng.uniform(0.1, 0.25), 0.06, 0.06), "accent", tier)


def _jagged_triangle(top: float, bottom: float, reach: float, teeth: int) -> np.ndarray:
    across = np.linspace(reach, -reach, 2 * teeth + 1)
    hem = [(x, bottom if i % 2 == 0 else bottom - 0.12) for i, x in enumerate(across)]
    return np.array([(0.0, top), *hem])


def _draw_house(pen: Pen, rng: np.random.Generator) -> None:
    chimney, ridge = rng.choice((-0.5, 0.5)), rng.uniform(-0.2, 0.2)
    pen.fill(box(chimney - 0.12, -0.85, chimney + 0.12, -0.2), "accent")
    wall = pen.fill(box(-0.8, -0.1, 0.8, 0.9), "body")
    roof = pen.fill([(-1, -0.02), (ridge - 0.35, -0.75), (ridge + 0.35, -0.75), (1, -0.02)], "second")
    for y in (-0.55, -0.35, -0.15):
        pen.detail(line(-1, y, 1, y, 0.04), "dark", roof)
    door = rng.choice((-0.45, 0.0, 0.45))
    pen.detail(box(door - 0.16, 0.35, door + 0.16, 0.9), "dark", wall)
    pen.detail(ellipse(door + 0.09, 0.63, 0.04, 0.04), "light", wall)
    for x in (-0.5, 0.05, 0.5):
        if abs(x - door) > 0.3:
            _draw_window(pen, wall, x, 0.3)


def _draw_window(pen: Pen, wall: np.ndarray, x: float, y: float) -> None:
    pen.detail(box(x - 0.21, y - 0.22, x + 0.21, y + 0.22), "dark", wall)
    pen.detail(box(x - 0.17, y - 0.18, x + 0.17, y + 0.18), "light", wall)
    pen.detail(line(x, y - 0.2, x, y + 0.2, 0.05), "dark", wall)
    pen.detail(line(x - 0.2, y, x + 0.2, y, 0.05), "dark", wall)


def _draw_mug(pen: Pen, rng: np.random.Generator) -> None:
    taper = rng.uniform(0.0, 0.14)
    pen.fill(band(0.35, 0.08, 0.65, 0.55, 0.2, -95, 95), "body")
    outline = [(-0.85, -0.75), (0.5, -0.75), (0.5 - taper, 0.75), (0.35 - taper, 0.88), (-0.7 + taper, 0.88)]
    side = pen.fill([*outline, (-0.85 + taper, 0.75)], "body")
    middle = rng.uniform(-0.1, 0.3)
    if rng.random() < 0.5:
        pen.detail(box(-1, middle - 0.2, 1, middle + 0.2), "accent", side)
    else:
        for x in (-0.55, -0.18, 0.2):
            pen.detail(ellipse(x, middle, 0.15, 0.2), "accent", side)
    pen.detail(box(-1, 0.72, 1, 0.78), "dark", side)
    pen.fill(ellipse(-0.175, -0.75, 0.675, 0.2), "light")
    pen.fill(ellipse(-0.175, -0.73, 0.56, 0.13), "dark")


def _draw_mushroom(pen: Pen, rng: np.random.Generator) -> None:
    foot, brim = rng.uniform(0.3, 0.42), rng.uniform(0.02, 0.15)
    base = [(foot, 0.85), (foot - 0.1, 0.97), (0.1 - foot, 0.97), (-foot, 0.85)]
    stem = pen.fill([(-0.24, 0), (0.24, 0), *base], "light")
    pen.detail(box(-0.5, 0.3, 0.5, 0.4), "second", stem)
    for x in (-0.12, 0.1):
        pen.detail(line(x, 0.4, x * 1.5, 1, 0.03), "dark", stem)
    under = pen.fill(ellipse(0, brim, 0.98, 0.2), "dark")
    for x in np.linspace(-0.8, 0.8, 9):
        pen.detail(line(x * 0.4, -0.1, x, brim + 0.3, 0.035), "light", under)
    cap = pen.fill([*ellipse(0, brim, 1, 1.0 + brim, 180, 360), *ellipse(0, brim, 1, 0.08, 0, 180)], "body")
    for x, y in ((-0.55, -0.2), (0.0, -0.35), (0.55, -0.15), (-0.28, -0.72), (0.36, -0.68)):
        shift, radius = rng.uniform(-0.08, 0.08, 2), rng.uniform(0.12, 0.19)
        pen.detail(ellipse(x + shift[0], y + shift[1], radius, radius), "accent", cap)


def _draw_clock(pen: Pen, rng: np.random.Generator) -> None:
    for x in (-1, 1):
        pen.fill(line(0, 0, 0.68 * x, 0.95, 0.17), "dark")
        pen.fill(ellipse(0.55 * x, -0.68, 0.3, 0.26), "second")
    pen.fill(ellipse(0, 0.06, 0.86, 0.86), "body")
    pen.fill(ellipse(0, 0.06, 0.67, 0.67), "light")
    for hour in range(12):
        angle = np.radians(hour * 30)
        inner, width = (0.45, 0.1) if hour % 3 == 0 else (0.54, 0.06)
        x, y = np.cos(angle), np.sin(angle)
        pen.fill(line(inner * x, inner * y + 0.06, 0.63 * x, 0.63 * y + 0.06, width), "dark")
    for angle, length, width in zip(rng.uniform(0, 2 * np.pi, 2), (0.36, 0.52), (0.12, 0.085)):
        pen.fill(line(0, 0.06, length * np.cos(angle), length * np.sin(angle) + 0.06, width), "dark")
    pen.fill(ellipse(0, 0.06, 0.09, 0.09), "accent")


SHAPES = {
    "boat": Shape("vehicle", 15, _draw_boat),
    "car": Shape("vehicle", 20, _draw_car),
    "clock": Shape("household", 180, _draw_clock),
    "fish": Shape("nature", 180, _draw_fish),
    "house": Shape("building", 10, _draw_house),
    "mug": Shape("household", 25, _draw_mug),
    "mushroom": Shape("nature", 30, _draw_mushroom),
    "tree": Shape("nature", 12, _draw_tree),
}
CLASSES: tuple[str, ...] = tuple(SHAPES)

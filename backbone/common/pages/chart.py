"""Line charts of what a run measures against iterations, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as XML

from .svg import element, text, tick_step, write

Curve = list[tuple[int, float]]
WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 46
POINTS = 250
# The top of the scale over the highest last value: the first iterations, near chance, would flatten all that follows.
HEADROOM = 1.6
# From here on the axis counts ten thousands, as in the paper.
TEN_THOUSANDS = 10_000


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        color: 0..7, a class of the page's style.
        dashed: thin and dashed (training), else bold (test).
        points: (iteration, value).
    """

    name: str
    color: int
    dashed: bool
    points: Curve


@dataclass(frozen=True)
class Reference:
    """A level line: a published figure.

    Attributes:
        color: as in Series.
        value: in the unit of the curves, per cent.
    """

    name: str
    color: int
    value: float


@dataclass(frozen=True)
class Axis:
    """A horizontal axis: its name, and the places of its ticks with what stands there."""

    name: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Scale:
    """Ranges of the axes: iterations from 0, values."""

    iterations: float
    low: float
    high: float

    def x(self, iteration: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * iteration / self.iterations

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / (self.high - self.low)


def thin_out(points: Curve, most: int = POINTS) -> Curve:
    """Return at most `most` points, each the mean of neighbours at the iteration of the last of them."""
    size = -(-len(points) // most) if points else 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def fit_scale(series: Sequence[Series], iterations: int, limit: float = 100.0, headroom: float = HEADROOM) -> Scale:
    """Return a scale for all of `series`, so that panels side by side can be compared.

    Args:
        iterations: of the longest schedule; the axis is never shorter than a curve.
        limit: that no value can pass; infinity where there is none.
        headroom: the top over the highest last value; infinity shows every value.
    """
    ends = [line.points[-1] for line in series if line.points]
    values = [value for line in series for _, value in line.points]
    last = max([iterations, *(iteration for iteration, _ in ends)], default=0) or 1
    if not values:
        return Scale(last, 0.0, min(limit, 100.0))
    wanted = max(values)
    if math.isfinite(headroom):
        wanted = min(wanted, headroom * max(value for _, value in ends))
    # Figures may be negative: a loss, or -1 where a set has nothing of a kind.
    step = tick_step(max(abs(wanted), wanted - min(values)) or 1.0)
    high = min(limit, max(step, math.ceil(wanted / step) * step))
    low = min(math.floor(min(values) / step) * step, high - step)
    return Scale(last, 0.0 if low <= 0.5 * high else low, high)


def draw(
    title: str,
    series: Sequence[Series],
    scale: Scale,
    *,
    axis: str,
    number: int,
    empty: str,
    drops: Sequence[float] = (),
    references: Sequence[Reference] = (),
    across: Axis | None = None,
) -> str:
    """Return a chart as SVG text.

    Args:
        axis: what the vertical axis shows, with its unit.
        number: of the chart on its page.
        empty: what it says where it has no curve.
        drops: iterations at which the learning rate drops.
        references: published figures, lines across the chart; what the scale does not hold is left out.
        across: the horizontal axis; by default, of iterations.
    """
    label = f"{title}: " + (", ".join(line.name for line in series) or empty)
    svg = element(None, "svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", **{"aria-label": label})
    text(svg, LEFT, 18, title, "title")
    _axes(svg, scale, axis, across or _of_iterations(scale))
    for at in drops:
        x = f"{scale.x(at):.1f}"
        element(svg, "line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, **{"class": "drop"})
    for one in references:
        if scale.low <= one.value <= scale.high:
            ends = {
                "x1": LEFT,
                "x2": WIDTH - RIGHT,
                "y1": f"{scale.y(one.value):.1f}",
                "y2": f"{scale.y(one.value):.1f}",
            }
            line = element(svg, "line", **ends, **{"class": f"paper c{one.color}"})
            element(line, "title").text = f"{one.name}, paper: {one.value:g} %"
    clip = element(element(svg, "defs"), "clipPath", id=f"clip{number}")
    area = {"x": LEFT, "y": TOP, "width": WIDTH - LEFT - RIGHT, "height": HEIGHT - TOP - BOTTOM}
    element(clip, "rect", **area)
    lines = element(svg, "g", **{"clip-path": f"url(#clip{number})"})
    for line in sorted(series, key=lambda line: not line.dashed):
        path = " ".join(f"{scale.x(at):.1f},{scale.y(value):.1f}" for at, value in line.points)
        kind = "line dashed" if line.dashed else "line"
        names = {"class": f"{kind} c{line.color}", "data-line": series.index(line)}
        element(lines, "polyline", points=path, **names)
        at, value = line.points[-1]
        # The end of a curve, outside the clipped area, which would cut the mark; a curve of one point is no more.
        if scale.low <= value <= scale.high and (not line.dashed or len(line.points) == 1):
            x, y = f"{scale.x(at):.1f}", f"{scale.y(value):.1f}"
            element(svg, "circle", cx=x, cy=y, r=3, **{"class": f"c{line.color}"})
    if not series:
        text(svg, (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2, empty, "empty", anchor="middle")
    element(svg, "line", x1=0, x2=0, y1=TOP, y2=HEIGHT - BOTTOM, **{"class": "cursor"})
    return write(svg)


def chart_data(series: Sequence[Series], scale: Scale, *, unit: str = " %", digits: int = 2) -> dict[str, Any]:
    """Return what a page's script needs to show values under the pointer, and to smooth curves.

    Args:
        unit: behind each value.
        digits: decimals shown.
    """
    return {
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "width": WIDTH,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "low": scale.low,
        "high": scale.high,
        "unit": unit,
        "digits": digits,
        "iterations": scale.iterations,
        "series": [
            {
                "name": line.name + (" training" if line.dashed else ""),
                "color": line.color,
                "points": [[at, round(value, digits + 1)] for at, value in line.points],
            }
            for line in series
        ],
    }


def _axes(svg: XML.Element, scale: Scale, axis: str, across: Axis) -> None:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    step = tick_step(scale.high - scale.low)
    for index in range(int((scale.high - scale.low) / step + 1e-6) + 1):
        value = scale.low + index * step
        y = f"{scale.y(value):.1f}"
        element(svg, "line", x1=LEFT, x2=right, y1=y, y2=y, **{"class": "grid"})
        text(svg, LEFT - 7, scale.y(value) + 4, f"{value:g}", "tick", anchor="end")
    for place, shown in across.ticks:
        x = scale.x(place)
        element(svg, "line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=bottom, y2=bottom + 4, **{"class": "axis"})
        text(svg, x, bottom + 18, shown, "tick", anchor="middle")
    element(svg, "polyline", points=f"{LEFT},{TOP} {LEFT},{bottom} {right},{bottom}", **{"class": "axis"})
    text(svg, (LEFT + right) / 2, HEIGHT - 8, across.name, "name", anchor="middle")
    middle = (TOP + bottom) / 2
    name = text(svg, 14, middle, axis, "name", anchor="middle")
    name.set("transform", f"rotate(-90 14 {middle:g})")


def _of_iterations(scale: Scale) -> Axis:
    """Return the axis of iterations, in ten thousands of a long course."""
    unit = TEN_THOUSANDS if scale.iterations >= TEN_THOUSANDS else 1
    step = tick_step(scale.iterations / unit, most=8)
    step = step if unit > 1 else max(1.0, step)
    number = int(scale.iterations / unit / step + 1e-6) + 1
    ticks = [(index * step * unit, f"{index * step:g}") for index in range(number)]
    return Axis("iteration (1e4)" if unit > 1 else "iteration", ticks)

"""Curves of a report as inline SVG; its script redraws them for the chosen class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backbone.common.pages.svg import element, text, tick_step, write

from .analysis import Analysis
from .precision import AT_50, AT_75
from .scores import Calibration, Sweep

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 32, 44
WHOLE = 1000
"""Values stand in a page in thousandths."""
PR_NAMES = ("IoU .5", "IoU .75", "mean of IoU .5 to .95")
SWEEP_NAMES = ("precision", "recall", "F1")


def curve_data(analysis: Analysis) -> dict[str, Any]:
    """Return what the script needs: for all classes together, then for each class, curves in thousandths.

    `pr` has three curves over 101 recalls, `sweep` precision, recall and F1 over the thresholds, `best` the score of
    the best F1 and its place between the thresholds; null is no value.
    """
    precision = analysis.figures.precision[..., 0]
    by_iou = [precision[AT_50], precision[AT_75], precision.mean(axis=0)]
    present = analysis.wanted > 0
    together = [curves[:, present].mean(axis=1) if present.any() else curves.sum(axis=1) * np.nan for curves in by_iou]
    classes = range(len(analysis.case.class_names))
    return {
        "names": ["all classes", *analysis.case.class_names],
        "pr": [
            [_whole(curve) for curve in together],
            *([_whole(curves[:, label]) for curves in by_iou] for label in classes),
        ],
        "sweep": [_sweep(one) for one in (analysis.sweep, *analysis.class_sweeps)],
        "best": [
            _best(analysis.best_score, analysis.sweep),
            *map(_best, analysis.class_scores, analysis.class_sweeps),
        ],
        "area": [LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM],
        "thresholds": [float(analysis.sweep.thresholds[0]), float(analysis.sweep.thresholds[-1])],
    }


def _sweep(one: Sweep) -> list[list[int | None]]:
    return [_whole(curve) for curve in (one.precision, one.recall, one.f1)]


def _best(score: float, one: Sweep) -> list[float] | None:
    """Return the least score of best F1, and where it lies from 0 to 1 on its axis; None where nothing is right."""
    if score != score:
        return None
    low, high = one.thresholds[[0, -1]].tolist()
    return [score, (score - low) / (high - low)]


def _whole(curve: np.ndarray) -> list[int | None]:
    return [None if value != value else round(WHOLE * value) for value in curve.tolist()]


def curve_chart(
    name: str,
    title: str,
    axes: tuple[str, str],
    curves: Sequence[Sequence[int | None]],
    span: tuple[float, float],
    best: Sequence[float] | None = None,
) -> str:
    """Return a chart of curves in thousandths over evenly spaced places of `span`, as SVG.

    Args:
        name: key of the data that its script redraws it from.
        axes: names of the x and y axes.
        best: a score of `curve_data`'s "best" to mark.
    """
    svg = element(
        None, "svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", **{"aria-label": title, "data-curves": name}
    )
    text(svg, LEFT, 18, title, "title")
    _axes(svg, axes, span)
    for color, curve in enumerate(curves):
        element(svg, "polyline", points=_points(curve), **{"class": f"line c{color}"})
    if best is not None:
        x = f"{_x(best[1]):.1f}"
        element(svg, "line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, **{"class": "best"})
        left = best[1] > 0.5
        words = f"best F1 at {best[0]:.2f}"
        text(svg, _x(best[1]) + (-5 if left else 5), TOP + 10, words, "best", anchor="end" if left else "start")
    element(svg, "line", x1=0, x2=0, y1=TOP, y2=HEIGHT - BOTTOM, **{"class": "cursor"})
    return write(svg)


def _points(curve: Sequence[int | None]) -> str:
    last = max(1, len(curve) - 1)
    places = ((_x(index / last), _y(value / WHOLE)) for index, value in enumerate(curve) if value is not None)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _x(part: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * part


def _y(part: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part


def _axes(svg: Any, names: tuple[str, str], span: tuple[float, float]) -> None:
    low, high = span
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tenth in range(0, 11, 2):
        y = _y(tenth / 10)
        element(svg, "line", x1=LEFT, x2=right, y1=f"{y:.1f}", y2=f"{y:.1f}", **{"class": "grid"})
        text(svg, LEFT - 7, y + 4, f"{tenth / 10:g}", "tick", anchor="end")
    step = tick_step(high - low, most=5)
    first = int(np.ceil(low / step - 1e-6))
    for index in range(first, int(np.floor(high / step + 1e-6)) + 1):
        x = _x((index * step - low) / (high - low))
        element(svg, "line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=bottom, y2=bottom + 4, **{"class": "axis"})
        text(svg, x, bottom + 18, f"{index * step:g}", "tick", anchor="middle")
    element(svg, "polyline", points=f"{LEFT},{TOP} {LEFT},{bottom} {right},{bottom}", **{"class": "axis"})
    text(svg, (LEFT + right) / 2, HEIGHT - 6, names[0], "name", anchor="middle")
    middle = (TOP + bottom) / 2
    side = text(svg, 13, middle, names[1], "name", anchor="middle")
    side.set("transform", f"rotate(-90 13 {middle:g})")


def calibration_chart(calibration: Calibration) -> str:
    """Return a chart of the part of the detections that is right against their score, as SVG."""
    title = f"Calibration at IoU .5 (expected error {calibration.error:.3f})"
    svg = element(None, "svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", **{"aria-label": title})
    text(svg, LEFT, 18, title, "title")
    _axes(svg, ("score", "part that is right"), (0.0, 1.0))
    bins = len(calibration.number)
    for place, (number, score, right) in enumerate(
        zip(calibration.number.tolist(), calibration.score.tolist(), calibration.right.tolist())
    ):
        if not number:
            continue
        sides = {"x": f"{_x(place / bins) + 1:.1f}", "width": f"{_x(1 / bins) - LEFT - 2:.1f}"}
        bar = element(
            svg, "rect", **sides, y=f"{_y(right):.1f}", height=f"{_y(0) - _y(right):.1f}", **{"class": "bin c0"}
        )
        element(bar, "title").text = f"{number:,} detections, mean score {score:.3f}, right {right:.3f}"
    diagonal = f"{_x(0):.1f},{_y(0):.1f} {_x(1):.1f},{_y(1):.1f}"
    element(svg, "polyline", points=diagonal, **{"class": "line dashed c1"})
    return write(svg)

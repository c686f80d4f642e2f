"""One image of a report: its objects, right detections and errors as SVG over a JPEG."""

from __future__ import annotations

import base64
import os
import unicodedata
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from backbone.common.images import read_image
from backbone.common.images.placing import Place, free_place
from backbone.common.images.save import encode_jpeg
from backbone.common.pages.svg import element, text, write

from .analysis import Analysis
from .errors import MEANING, Kind
from .precision import TRUE

SIDE = 560  # pixels of the longer side: what a phone shows, and half of what a large screen does
QUALITIES = (76, 60, 45)
MOST_BYTES = 100_000  # of a JPEG
MOST_BOXES = 60  # false detections drawn on an image, those with the highest scores
# Of a name, in sizes of its font: a letter of the widest usual fonts, and one of East Asia.
NARROW, WIDE = 0.62, 1.05
POINT = 2.5  # radius of a keypoint


@dataclass(frozen=True)
class Shot:
    """An image and its errors.

    Attributes:
        weight: the sum of the scores of its false detections, and 1 for each missed object.
        false: positions of false detections, the highest score first.
        missed: number of missed objects.
    """

    image: int
    weight: float
    false: list[int]
    missed: int


@dataclass(frozen=True)
class _Box:
    """What is drawn for an object or a detection: [x, y, width, height] and keypoints in pixels of the drawing."""

    kind: str
    caption: str
    box: np.ndarray
    points: np.ndarray | None


def draw(analysis: Analysis, shot: Shot, label: str, *, size: int = 8) -> str:
    """Return the image as SVG. Errors lie on top, and their names have the first choice of places.

    A name that finds no place beside the others is left out; the title of its box has it.

    Args:
        label: what the picture shows, for those who cannot see it.
        size: of the names, in pixels of the drawing, which has SIDE at most.
    """
    picture = _picture(analysis, shot.image)
    height, width = _size(analysis, shot.image) if picture is None else picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    area = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
    svg = element(None, "svg", viewBox=f"0 0 {area['width']} {area['height']}", role="img", **{"aria-label": label})
    if picture is None:
        element(svg, "rect", **area, **{"class": "blank"})
    else:
        small = cv2.resize(picture, (area["width"], area["height"]), interpolation=cv2.INTER_AREA)
        element(svg, "image", **area, href=f"data:image/jpeg;base64,{_jpeg(small)}")
    boxes = _boxes(analysis, shot, scale)
    places = _places(boxes, (area["height"], area["width"]), size)
    for one in boxes:
        _add_box(svg, one)
    # On top of all boxes.
    for one, place in zip(boxes, places):
        if place is not None:
            _add_name(svg, one, place, size)
    return write(svg)


def caption(analysis: Analysis, row: int) -> str:
    """Return "Cls: dog 0.83 (cat)" of a false detection, where the object is a cat, and "dog 0.83" of a right one."""
    case, kind = analysis.case, Kind(int(analysis.errors.kind[row]))
    words = f"{case.class_names[case.detections.label[row]]} {case.detections.scores[row]:.2f}"
    if kind == Kind.NONE:
        return words
    truth = ""
    if kind == Kind.CLS:
        truth = f" ({case.class_names[case.objects.label[analysis.errors.target[row]]]})"
    return f"{MEANING[kind][0]}: {words}{truth}"


def _boxes(analysis: Analysis, shot: Shot, scale: float) -> list[_Box]:
    """Return what is drawn, from the lowest layer to the highest: found objects, right detections, errors."""
    case, objects, detections = analysis.case, analysis.case.objects, analysis.case.detections
    lower, missed = [], []
    for row in np.flatnonzero(objects.image == shot.image).tolist():
        name, points = case.class_names[objects.label[row]], _points(objects, row, scale)
        if analysis.shown_missed[row]:
            missed.append(_Box("Miss", f"missed: {name}", objects.boxes[row] * scale, points))
        else:
            kind = "Ignored" if objects.ignored[row] else "Truth"
            lower.append(_Box(kind, name, objects.boxes[row] * scale, points))
    right = (detections.image == shot.image) & (analysis.errors.kind == Kind.NONE)
    right &= (detections.scores >= analysis.score) & (analysis.figures.outcome == TRUE)
    # The highest score last, on top.
    for row in [*np.flatnonzero(right).tolist(), *reversed(shot.false[:MOST_BOXES])]:
        kind = MEANING[Kind(int(analysis.errors.kind[row]))][0] if row in shot.false else "Right"
        box = _Box(kind, caption(analysis, row), detections.boxes[row] * scale, _points(detections, row, scale))
        (lower if kind == "Right" else missed).append(box)
    return lower + missed


def _points(columns: Any, row: int, scale: float) -> np.ndarray | None:
    """Return the visible keypoints (K, 2) of an object or a detection."""
    if columns.keypoints is None:
        return None
    points = columns.keypoints[row].reshape(-1, 3)
    # COCO's coordinates are indices of pixels, whose centres lie half a pixel further.
    return (points[points[:, 2] > 0, :2] + 0.5) * scale


def _places(boxes: list[_Box], canvas: tuple[int, int], size: int) -> list[Place | None]:
    taken: list[Place] = []
    places: list[Place | None] = []
    for one in reversed(boxes):
        left, top, width, height = np.round(np.clip(one.box, -1e5, 1e5)).astype(int).tolist()
        shape = (size + 4, min(canvas[1], _width(one.caption, size)))
        place = free_place((left, top, left + width, top + height), shape, canvas, taken)
        taken += [] if place is None else [place]
        places.append(place)
    return places[::-1]


def _width(words: str, size: int) -> int:
    letters = (WIDE if unicodedata.east_asian_width(letter) in "WF" else NARROW for letter in words)
    return round(size * sum(letters)) + 4


def _add_box(svg: Any, one: _Box) -> None:
    left, top, width, height = (f"{value:.1f}" for value in one.box.tolist())
    group = element(svg, "g", **{"class": f"box k{one.kind}"})
    rectangle = element(group, "rect", x=left, y=top, width=width, height=height)
    element(rectangle, "title").text = one.caption
    for x, y in one.points.tolist() if one.points is not None else ():
        element(group, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=POINT)


def _add_name(svg: Any, one: _Box, place: Place, size: int) -> None:
    left, top, right, bottom = place
    plate = element(svg, "g", **{"class": f"box caption k{one.kind}"})
    element(plate, "rect", x=left, y=top, width=right - left, height=bottom - top)
    # As long as its plate, whatever the reader's font.
    words = text(plate, left + 2, top + size + 0.5, one.caption, "words")
    words.set("font-size", str(size))
    words.set("textLength", str(right - left - 4))
    words.set("lengthAdjust", "spacingAndGlyphs")


def _picture(analysis: Analysis, index: int) -> np.ndarray | None:
    files = analysis.case.image_files
    if files is None or not os.path.isfile(files[index]):
        return None
    size = analysis.case.image_sizes[index]
    return read_image(files[index], size=size and size[::-1])


def _size(analysis: Analysis, index: int) -> tuple[int, int]:
    """Return (height, width), where it is not known what holds all boxes."""
    known = analysis.case.image_sizes[index]
    if known is not None:
        return known
    found, truth = analysis.case.detections, analysis.case.objects
    boxes = np.concatenate([found.boxes[found.image == index], truth.boxes[truth.image == index]])
    width, height = np.ceil((boxes[:, :2] + boxes[:, 2:]).max(axis=0)).astype(int).tolist()
    return max(1, height), max(1, width)


def _jpeg(image: np.ndarray) -> str:
    for quality in QUALITIES:
        data = encode_jpeg(image[:, :, ::-1], quality)
        if len(data) <= MOST_BYTES:
            break
    return base64.b64encode(data).decode("ascii")

"""The worst and the best images, drawn: objects and false detections as SVG over a JPEG, all inside the page."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import numpy as np

from backbone.common.images import read_image
from backbone.common.pages.svg import element, text, write
from backbone.common.text import count

from .analysis import Analysis
from .errors import FALSE_KINDS, MEANING, Kind
from .precision import TRUE

NUMBER = 24
SIDE = 640  # pixels of the longer side
QUALITIES = (82, 65, 45)
MOST_BYTES = 230_000  # of a JPEG, so that a page of NUMBER images stays below 10 MB
MOST_BOXES = 60  # false detections drawn on an image, those with the highest scores


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


def worst_images(analysis: Analysis, number: int = NUMBER) -> list[Shot]:
    """Return the images with the heaviest errors among detections of the analysis' least score; equal ones in order."""
    case = analysis.case
    false = np.flatnonzero(analysis.shown_false)
    images = len(case.image_names)
    probable = np.clip(case.detections.scores[false], 0, 1)
    missed = np.bincount(case.objects.image[analysis.shown_missed], minlength=images)
    weight = np.bincount(case.detections.image[false], probable, minlength=images) + missed
    chosen = [index for index in np.argsort(-weight, kind="stable")[:number].tolist() if weight[index] > 0]
    result = []
    for index in chosen:
        of_image = false[case.detections.image[false] == index]
        order = np.argsort(-case.detections.scores[of_image], kind="stable")
        result.append(Shot(index, float(weight[index]), of_image[order].tolist(), int(missed[index])))
    return result


def best_images(analysis: Analysis, number: int) -> list[Shot]:
    """Return the images whose right detections outweigh their errors most, by the sums of their scores."""
    case, shown = analysis.case, analysis.case.detections.scores >= analysis.score
    right = np.flatnonzero(shown & (analysis.figures.outcome == TRUE))
    images = len(case.image_names)
    gain = np.bincount(case.detections.image[right], np.clip(case.detections.scores[right], 0, 1), minlength=images)
    errors = {shot.image: shot for shot in worst_images(analysis, images)}
    balance = [value - (errors[image].weight if image in errors else 0.0) for image, value in enumerate(gain.tolist())]
    order = sorted(np.flatnonzero(gain).tolist(), key=lambda image: -balance[image])
    return [errors.get(image) or Shot(image, 0.0, [], 0) for image in order[:number]]


def shots(analysis: Analysis, chosen: Sequence[Shot]) -> str:
    """Return images with their objects, right detections and errors as HTML, without a script."""
    figures = []
    for shot in chosen:
        name, line = escape(analysis.case.image_names[shot.image]), _errors(analysis, shot) or "no error"
        drawing = _drawing(analysis, shot, f"{analysis.case.image_names[shot.image]}: {line}")
        caption = f"<figcaption><strong>{name}</strong><br>{escape(line)}</figcaption>"
        figures.append(f'<figure class="shot">{drawing}{caption}</figure>')
    return f'<div class="shots">{"".join(figures)}</div>'


def gallery(analysis: Analysis) -> str:
    """Return the worst images as HTML."""
    worst = worst_images(analysis)
    if not worst:
        return '<p class="note">No image has an error.</p>'
    files = analysis.case.image_files
    notes = []
    if files is None:
        notes.append("Boxes alone: give --images DIR to see the images.")
    elif any(not os.path.isfile(files[one.image]) for one in worst):
        notes.append("Boxes alone where the image file is missing.")
    if any(len(one.false) > MOST_BOXES for one in worst):
        notes.append(f"At most {MOST_BOXES} false detections are drawn on an image.")
    line = f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
    figures = "\n".join(_figure(analysis, one, rank) for rank, one in enumerate(worst, 1))
    return f'{line}{_switches()}<div class="shots">\n{figures}\n</div><dialog aria-label="Image"></dialog>'


def _switches() -> str:
    boxes = [("Truth", "objects", True), *((name, name, True) for name, _, _ in MEANING.values())]
    boxes.append(("Right", "right detections", False))
    inputs = "".join(
        f'<label><input type="checkbox" data-shows="{key}"{" checked" if on else ""}>'
        f'<span class="dot k{key}"></span>{title}</label>'
        for key, title, on in boxes
    )
    return f'<fieldset class="switches"><legend>Show</legend>{inputs}</fieldset>'


def _figure(analysis: Analysis, worst: Shot, rank: int) -> str:
    name = analysis.case.image_names[worst.image]
    line = _errors(analysis, worst)
    label = f"{rank}. {name}: {count(len(worst.false) + worst.missed, 'error')} ({line})"
    return (
        f'<figure class="shot"><button type="button" aria-label="{escape(f"Enlarge {label}")}">'
        f"{_drawing(analysis, worst, label)}</button>"
        f"<figcaption><strong>{rank}. {escape(name)}</strong><br>{escape(line)}</figcaption></figure>"
    )


def _errors(analysis: Analysis, shot: Shot) -> str:
    kinds = analysis.errors.kind[shot.false].tolist()
    numbers = {MEANING[kind][0]: kinds.count(kind) for kind in FALSE_KINDS} | {MEANING[Kind.MISS][0]: shot.missed}
    return ", ".join(f"{number} {kind}" for kind, number in numbers.items() if number)


def _drawing(analysis: Analysis, worst: Shot, label: str) -> str:
    case, index = analysis.case, worst.image
    picture = _picture(analysis, index)
    height, width = _size(analysis, index) if picture is None else picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    shown_width, shown_height = max(1, round(width * scale)), max(1, round(height * scale))
    svg = element(None, "svg", viewBox=f"0 0 {shown_width} {shown_height}", role="img", **{"aria-label": label})
    area = {"width": shown_width, "height": shown_height}
    if picture is None:
        element(svg, "rect", **area, **{"class": "blank"})
    else:
        small = cv2.resize(picture, (shown_width, shown_height), interpolation=cv2.INTER_AREA)
        element(svg, "image", **area, href=f"data:image/jpeg;base64,{_jpeg(small)}")
    objects, detections = case.objects, case.detections
    for row in np.flatnonzero(objects.image == index).tolist():
        kind = "Miss" if analysis.shown_missed[row] else "Ignored" if objects.ignored[row] else "Truth"
        _box(svg, objects.boxes[row] * scale, kind, case.class_names[objects.label[row]], below=True)
    right = (detections.image == index) & (analysis.errors.kind == Kind.NONE) & (detections.scores >= analysis.score)
    for row in np.flatnonzero(right & (analysis.figures.outcome == TRUE)).tolist():
        _box(svg, detections.boxes[row] * scale, "Right", _caption(analysis, row))
    # The highest score last, on top.
    for row in reversed(worst.false[:MOST_BOXES]):
        name = MEANING[Kind(int(analysis.errors.kind[row]))][0]
        _box(svg, detections.boxes[row] * scale, name, f"{name}: {_caption(analysis, row)}")
    return write(svg)


def _caption(analysis: Analysis, row: int) -> str:
    detections = analysis.case.detections
    return f"{analysis.case.class_names[detections.label[row]]} {detections.scores[row]:.2f}"


def _box(svg: Any, box: np.ndarray, kind: str, caption: str, *, below: bool = False) -> None:
    left, top, width, height = (float(value) for value in box)
    group = element(svg, "g", **{"class": f"box k{kind}"})
    rectangle = element(group, "rect", x=f"{left:.1f}", y=f"{top:.1f}", width=f"{width:.1f}", height=f"{height:.1f}")
    element(rectangle, "title").text = caption
    # To the left where the caption could leave the image.
    room = float(svg.get("viewBox").split()[2]) - left
    x, anchor = (left + 2, "start") if room > 6 * len(caption) else (left + width - 2, "end")
    text(group, x, top + height - 3 if below else max(top - 3, 12), caption, "caption", anchor=anchor)


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
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= MOST_BYTES:
            break
    return base64.b64encode(data).decode("ascii")

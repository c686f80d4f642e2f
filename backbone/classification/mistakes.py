"""mistakes.html: which classes are taken for which, and the images that a classifier is most wrong about."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..common.confusion import most_confused
from ..common.errors import DataError
from ..common.images import rgb_picture
from ..common.pages.confusion import confusions_table, matrix_table
from ..common.pages.report import (
    REPORT_SCRIPT,
    REPORT_STYLE,
    SHOTS_STYLE,
    find_button,
    report_page,
    shots_gallery,
    tiles,
)
from ..common.pages.svg import element, write
from ..common.pages.tables import NONE, html_table, percent
from ..common.text import count
from .data import LabelledImages
from .testing import Errors, Protocol
from .testing.grad_cam import enlarged, grad_cam, overlay

# Pixels of the side below which a picture is kept as it is, without loss, and shown in its pixels.
SMALL = 100
STYLE = (
    REPORT_STYLE
    + SHOTS_STYLE
    + """
.shots { grid-template-columns: repeat(auto-fill, minmax(min(190px, 100%), 1fr)); }
.shot .small { image-rendering: pixelated; }
.heat, .looked .view { display: none; }
.looked .heat { display: inline; }
.errors { display: block; white-space: pre-line; }
"""
)
SCRIPT = (
    REPORT_SCRIPT
    + """
const box = document.getElementById("look");
if (box) {
  const show = () => document.body.classList.toggle("looked", box.checked);
  box.addEventListener("change", show);
  show();
}
"""
)


@dataclass(frozen=True)
class Looker:
    """A network that shows where it looks.

    Attributes:
        prepare: from (N, C, H, W) pixels, RGB where they have colour, to the network's input.
        protocol: of one view an image, "single" or "1crop".
    """

    network: nn.Module
    prepare: Callable[[Tensor], Tensor]
    protocol: Protocol
    device: torch.device

    def view(self, image: np.ndarray) -> np.ndarray:
        """Return the part of an image (H, W, C) that the network sees."""
        return np.ascontiguousarray(self.protocol.cut(image)[0][0])

    def heat(self, view: np.ndarray, label: int | None = None) -> np.ndarray:
        """Return where the view speaks for a class, by default the likeliest: (H, W) in 0..1."""
        images = self.prepare(torch.from_numpy(view).to(self.device).permute(2, 0, 1)[None])
        labels = None if label is None else torch.tensor([label])
        return enlarged(grad_cam(self.network, images, labels), *view.shape[:2])[0]


def worst_mistakes(errors: Errors, number: int) -> list[int]:
    """Return the images with a wrong first guess, those with the surest guess first; equal ones in order."""
    first = errors.guesses[:, 0].numpy()
    wrong = np.flatnonzero((first >= 0) & (first != errors.labels))
    return wrong[np.argsort(-errors.scores[wrong, 0].numpy(), kind="stable")[:number]].tolist()


def mistakes_page(name: str, errors: Errors, images: LabelledImages, looker: Looker, number: int) -> str:
    """Return the page as HTML.

    Args:
        name: of the run.
        number: of the worst mistakes that it shows.
    """
    worst = worst_mistakes(errors, number)
    sections = {
        "images": ("Worst mistakes", _gallery(errors, images, looker, worst)),
        "confusion": ("Confusion", _confusion(errors, worst)),
        "classes": ("Classes", '<p class="note">Choose a column’s name to sort.</p>' + _classes(errors)),
    }
    figures = {
        "top-1 error": errors.top1,
        "top-5 error": errors.top5,
        "mean class accuracy": errors.mean_class_accuracy,
    }
    if len(errors.classes) <= 5:
        del figures["top-5 error"]
    head = f'<p class="first">{escape(_sentence(errors))}</p>{tiles(figures)}'
    note = f'<p class="note">Protocol {errors.protocol}, {count(errors.images, "image")}, loss {errors.loss:.3f}.</p>'
    return report_page(f"Mistakes: {name} on {images.name}", head + note, sections, style=STYLE, script=SCRIPT)


def _sentence(errors: Errors) -> str:
    wrong = round(errors.top1 * errors.images)
    if not wrong:
        return f"All {errors.images:,} images are right."
    truth, found, times = most_confused(errors.confusion, len(errors.classes), 1)[0]
    return (
        f"{wrong:,} of {count(errors.images, 'image')} are wrong, most often {errors.classes[truth]} taken for "
        f"{errors.classes[found]} ({count(times, 'time')})."
    )


def _gallery(errors: Errors, images: LabelledImages, looker: Looker, worst: list[int]) -> str:
    if not worst:
        return '<p class="note">There is none.</p>'
    return (
        '<p class="note">Images whose first guess is wrong, the surest guesses first. Choose one to enlarge it.</p>'
        '<p><label><input type="checkbox" id="look"> Show where the network looked for its first guess (Grad-CAM, from '
        "blue to red)</label></p>" + shots_gallery([_figure(errors, images, looker, index) for index in worst])
    )


def _figure(errors: Errors, images: LabelledImages, looker: Looker, index: int) -> str:
    label, guesses = int(errors.labels[index]), errors.guesses[index].tolist()
    words = f"{errors.classes[label]}, taken for {errors.classes[guesses[0]]}"
    rows = list(zip(guesses, errors.scores[index].tolist()))
    if label not in guesses:
        rows.append((label, float(errors.likelihoods[index])))
    lines = "\n".join(f"{percent(score)} % {escape(errors.classes[guess])}" for guess, score in rows)
    place = escape(images.place(index).rpartition("/")[2])
    return (
        f'<figure class="shot" data-keys="{_key(label, guesses[0])}">'
        f'<button type="button" aria-label="{escape(f"Enlarge {words}")}">{_drawing(images, looker, index, guesses[0])}'
        f'</button><figcaption><strong>{escape(words)}</strong><span class="errors">{lines}</span>{place}</figcaption>'
        "</figure>"
    )


def _key(label: int, guess: int) -> str:
    return f"m{label}_{guess}"


def _drawing(images: LabelledImages, looker: Looker, index: int, label: int) -> str:
    """Return the view of an image, and its map for a class, as an SVG; an empty one where it cannot be read."""
    try:
        view = looker.view(images.decoded(index))
    except DataError:  # it was read a moment ago
        return write(element(None, "svg", viewBox="0 0 1 1"))
    picture = rgb_picture(view)
    height, width = view.shape[:2]
    small = max(height, width) < SMALL
    form, media = (".png", "png") if small else (".jpg", "jpeg")
    svg = element(None, "svg", viewBox=f"0 0 {width} {height}", role="img")
    for kind, shown in (("view", picture), ("heat", overlay(picture, looker.heat(view, label)))):
        content = base64.b64encode(cv2.imencode(form, shown[:, :, ::-1])[1].tobytes()).decode("ascii")
        names = {"class": f"{kind} small" if small else kind, "href": f"data:image/{media};base64,{content}"}
        element(svg, "image", width=width, height=height, **names)
    return write(svg)


def _confusion(errors: Errors, worst: list[int]) -> str:
    shown = {_key(int(errors.labels[index]), int(errors.guesses[index, 0])) for index in worst}

    def link(truth: int, found: int, words: str) -> str:
        title = f"{errors.classes[truth]}, taken for {errors.classes[found]}"
        key = _key(truth, found)
        return find_button(key, words, title) if key in shown else words

    often = confusions_table(errors.confusion, errors.classes, ["class", "taken for", "times", "% of the class"], link)
    if not often:
        return '<p class="note">No class is taken for another.</p>'
    return (
        f"<h3>Most frequent</h3>{often}"
        '<h3>Matrix</h3><p class="note">Each row is in per cent of its images. Choose a number to see its images among '
        "the worst.</p>" + matrix_table(errors.confusion, errors.classes, "class ↓ taken for →", link=link)
    )


def _classes(errors: Errors) -> str:
    matrix, accuracy = errors.confusion, errors.class_accuracy
    taken = matrix.sum(0)
    rows = []
    for label, name in enumerate(errors.classes):
        wrong = matrix[label].copy()
        wrong[label] = 0
        other = f"{escape(errors.classes[int(wrong.argmax())])} ({int(wrong.max()):,})" if wrong.any() else NONE
        precision = matrix[label, label] / taken[label] if taken[label] else float("nan")
        images = int(matrix[label].sum())
        rows.append([escape(name), other, f"{images}", percent(accuracy[label]), percent(precision)])
    header = ["class", "most often taken for", "images", "accuracy %", "precision %"]
    return html_table(header, rows, kind="sortable dense", words=2)

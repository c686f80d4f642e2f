"""What is wrong with a segmentation, as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from ..common.confusion import most_confused, row_shares
from ..common.files import write_text
from ..common.images.save import encode_jpeg
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
from ..common.pages.tables import NONE, filter_field, html_table, percent
from ..common.text import count
from .evaluation import metrics
from .pictures import WRONG, background_of, colours_of, quarters
from .scores import ImageScore, confused_words, worst_first

# Images shown at first, and on a page at most; for each class and each cell of the matrix beside the worst.
SHOWN, MOST, OF_CLASS, OF_CELL = 24, 80, 3, 2
MOST_CHARACTERS = 9_000_000  # of all images
SIDE = 400  # pixels of the longer side of a panel
TILES = {
    "mIoU": "mean IoU",
    "mDice": "mean Dice",
    "pACC": "pixel accuracy",
    "mACC": "mean accuracy",
    "mPrecision": "mean precision",
    "fwIoU": "frequency-weighted IoU",
}
STYLE = (
    REPORT_STYLE
    + SHOTS_STYLE
    + """
.colour { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px;
  vertical-align: -1px; border: 1px solid var(--weak); box-sizing: border-box; }
.colours { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 8px 0 14px; padding: 0;
  font-size: 13px; }
.shots { grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); }
.shot svg { max-height: none; }
"""
)
SCRIPT = f'"use strict";{REPORT_SCRIPT}\ndocument.documentElement.dataset.ready = "yes";\n'
# Returns an image (H, W, 3) RGB, or None where there is none, its predicted and its true labels.
Reader = Callable[[int], tuple[np.ndarray | None, np.ndarray, np.ndarray]]


def write_page(
    path: Path, classes: Sequence[str], counts: np.ndarray, scores: Sequence[ImageScore], read: Reader, *, title: str
) -> None:
    """Write the page.

    Args:
        counts: as of `evaluation.metrics`, over all images.
        read: returns what is drawn of an image, by its index.

    Raises:
        RunError: it cannot be written.
        DataError: an image to be drawn cannot be read.
    """
    gallery = _Gallery(classes, worst_first(scores), read)
    sections = {
        "classes": ("Classes", _classes(classes, counts, gallery)),
        "confusion": ("Confusion between classes", _confusion(classes, counts, gallery)),
        "images": ("Images", gallery.html()),
    }
    head = f'<p class="first">{escape(_sentence(classes, counts))}</p><p>{_facts(classes, counts, scores)}</p>'
    values = metrics(counts, classes)
    head += tiles({name: values[key] for key, name in TILES.items()})
    write_text(path, report_page(title, head, sections, style=STYLE, script=SCRIPT))


def _sentence(classes: Sequence[str], counts: np.ndarray) -> str:
    total, wrong = counts.sum(), counts.sum() - counts.trace()
    if not total:
        return "The truth is void all over: there are no figures."
    if not wrong:
        return "No pixel is wrong."
    most = most_confused(counts, len(classes), 1)
    often = f", most often {confused_words(most[0], classes)} ({percent(most[0][2] / wrong)} % of them)" if most else ""
    return f"{percent(wrong / total)} % of the pixels are wrong{often}."


def _facts(classes: Sequence[str], counts: np.ndarray, scores: Sequence[ImageScore]) -> str:
    return (
        f"{count(len(scores), 'image')}, {count(len(classes), 'class', 'classes')}, {int(counts.sum()):,} pixels with "
        "truth. Figures are in per cent; void pixels do not count."
    )


class _Gallery:
    """The images of a page: the worst ones, and some of each class and of each cell of the matrix, hidden at first."""

    def __init__(self, classes: Sequence[str], scores: Sequence[ImageScore], read: Reader) -> None:
        self.classes, self.scores, self.read = classes, scores, read
        self.keys: dict[int, list[str]] = defaultdict(list)
        self.images: dict[str, list[ImageScore]] = defaultdict(list)
        for score in scores:
            cells = [(truth, found) for truth, found, _ in score.confusions]
            for key in (*(f"m{t}-{f}" for t, f in cells), *(f"c{label}" for label in sorted(set(sum(cells, ()))))):
                self.images[key].append(score)
                self.keys[score.index].append(key)
        self.figures, self.on_page = self._drawn()

    def _chosen(self) -> list[ImageScore]:
        chosen = {score.index: score for score in self.scores[:SHOWN] if score.wrong > 0}
        often = sorted(self.images, key=lambda key: (key[0] == "m", -len(self.images[key]), key))
        for key in often:
            wanted = OF_CLASS if key[0] == "c" else OF_CELL
            have = sum(score.index in chosen for score in self.images[key])
            further = [score for score in self.images[key] if score.index not in chosen]
            for score in further[: max(0, min(wanted - have, MOST - len(chosen)))]:
                chosen[score.index] = score
        return list(chosen.values())

    def _drawn(self) -> tuple[list[str], Counter[str]]:
        figures, characters, shown = [], 0, Counter()
        for rank, score in enumerate(self._chosen(), 1):
            figures.append(self._figure(rank, score))
            characters += len(figures[-1])
            shown.update(self.keys[score.index])
            if characters > MOST_CHARACTERS:
                break
        return figures, shown

    def _figure(self, rank: int, score: ImageScore) -> str:
        confusions = [confused_words(one, self.classes) for one in score.confusions]
        line = f"mIoU {percent(score.miou)} %, {percent(score.wrong)} % wrong"
        errors = "; ".join(f"{words} ({one[2]:,} pixels)" for words, one in zip(confusions, score.confusions))
        label = f"{rank}. {score.name}: {line}"
        most = f"<br>most: {escape(confusions[0])}" if confusions else ""
        hidden = "" if rank <= SHOWN else " hidden"
        drawing = _svg(quarters(*self.read(score.index), self.classes, SIDE), label)
        return (
            f'<figure class="shot" data-keys="{" ".join(self.keys[score.index])}"{hidden}>'
            f'<button type="button" aria-label="{escape(f"Enlarge {label}")}">{drawing}</button>'
            f"<figcaption><strong>{rank}. {escape(score.name)}</strong><br>{escape(line)}{most}"
            f'<span class="errors" hidden>{escape(errors)}</span></figcaption></figure>'
        )

    def button(self, key: str, words: str, what: str) -> str:
        """Return HTML as a button that shows the images of a key, `what` (plain text); of none, as it is."""
        if not self.on_page.get(key):
            return words
        return find_button(key, words, f"{what}: {self.on_page[key]:,} of {count(len(self.images[key]), 'image')}")

    def html(self) -> str:
        if not self.figures:
            return '<p class="note">No image has an error.</p>'
        labels = sorted({label for score in self.scores for label in score.labels} - {background_of(self.classes)})
        colours = [(self.classes[label], colours_of(self.classes)[label]) for label in labels]
        items = "".join(
            f"<li>{_square(colour)}{escape(name)}</li>"
            for name, colour in [*colours, ("wrong", WRONG), ("void", (255, 255, 255))]
        )
        return (
            '<p class="note">The worst come first, by their own mIoU, over the classes in their truth or prediction. '
            "Choose an image to enlarge it and to read its confusions; the arrow keys go to the next and the previous "
            f'one, Esc closes it.</p><ul class="colours">{items}</ul>{shots_gallery(self.figures)}'
        )


def _svg(picture: np.ndarray, label: str) -> str:
    height, width = picture.shape[:2]
    svg = element(None, "svg", viewBox=f"0 0 {width} {height}", role="img", **{"aria-label": label})
    content = base64.b64encode(encode_jpeg(picture)).decode("ascii")
    element(svg, "image", width=width, height=height, href=f"data:image/jpeg;base64,{content}")
    return write(svg)


def _square(colour: Sequence[int]) -> str:
    return f'<span class="colour" style="background: rgb({" ".join(str(int(value)) for value in colour)})"></span>'


def _classes(classes: Sequence[str], counts: np.ndarray, gallery: _Gallery) -> str:
    values, total, shares = metrics(counts, classes), max(1, counts.sum()), row_shares(counts)
    rows = []
    for label, name in enumerate(classes):
        wrong = counts[label, : len(classes)].copy()
        wrong[label] = 0
        other = int(wrong.argmax())
        cell = f"{escape(classes[other])} ({percent(shares[label, other])})" if wrong[other] else NONE
        words = gallery.button(f"c{label}", escape(name), f"Errors of {name}")
        figures = [percent(values[f"{kind}-{name}"]) for kind in ("IoU", "Dice", "ACC", "Precision")]
        # The background is shown as the image is.
        shown = words if label == background_of(classes) else f"{_square(colours_of(classes)[label])}{words}"
        rows.append([shown, cell, *figures, percent(counts[label].sum() / total)])
    header = ["class", "most often taken for (% of the class)", "IoU", "Dice", "accuracy", "precision", "% of pixels"]
    return (
        '<p class="note">Accuracy is the share of a class’s pixels that are found, precision the share of the pixels '
        "that are taken for it and are right. Choose a column’s name to sort, a class to see its errors.</p>"
        f"{filter_field('Find a class')}{html_table(header, rows, kind='sortable dense', words=2)}"
    )


def _confusion(classes: Sequence[str], counts: np.ndarray, gallery: _Gallery) -> str:
    def link(truth: int, found: int, words: str) -> str:
        return gallery.button(f"m{truth}-{found}", words, confused_words((truth, found, 0), [*classes, "no class"]))

    header = ["truth", "taken for", "pixels", "% of the class"]
    often = confusions_table(counts, classes, header, link)
    if not often:
        return '<p class="note">No class is taken for another.</p>'
    background = ("nothing", "no class") if counts.shape[1] > len(classes) else None
    matrix = matrix_table(_squared(counts), classes, "truth ↓ prediction →", background, link)
    return (
        f'<p class="note">Each row of the matrix is in per cent of its true pixels.</p><h3>Most frequent</h3>{often}'
        f"<h3>Matrix</h3>{matrix}"
    )


def _squared(counts: np.ndarray) -> np.ndarray:
    """Return the counts with an empty row for each column behind the classes."""
    return np.pad(counts, ((0, counts.shape[1] - counts.shape[0]), (0, 0)))

"""The images of a report: the worst ones, and some for each kind of error, class and cell of the matrix."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from backbone.common.pages.report import find_button, shots_gallery
from backbone.common.text import count
from backbone.common.waiting import passing

from .analysis import Analysis
from .drawing import MOST_BOXES, Shot, caption, draw
from .errors import FALSE_KINDS, MEANING, Kind
from .precision import TRUE

NUMBER = 24  # images that are shown at first
MOST = 160  # images on a page
MOST_CHARACTERS = 9_000_000  # of all images
# Images wanted for each kind of error, class and cell.
WANTED = {"k": 8, "c": 2, "m": 1}
LISTED = 12  # errors that are named below an enlarged image
SHOT_NAMES = 14  # pixels, of the names on images that are not to be enlarged


@dataclass(frozen=True)
class Gallery:
    """Images as HTML.

    Attributes:
        on_page, in_all: how many images there are for a key: "kCls" of a kind of error, "c3" of a class (errors),
            "m3-5" of a cell of the confusion matrix.
    """

    html: str
    on_page: dict[str, int]
    in_all: dict[str, int]

    def button(self, key: str, words: str, what: str) -> str:
        """Return HTML as a button that shows the images of a key, `what` (plain text); of none, as it is."""
        if not self.on_page.get(key):
            return words
        return find_button(key, words, f"{what}: {self.on_page[key]:,} of {count(self.in_all[key], 'image')}")


def worst_images(analysis: Analysis, number: int = NUMBER) -> list[Shot]:
    """Return the images with the heaviest errors among detections of the analysis' least score; equal ones in order."""
    weight = _weights(analysis)
    return _shots(analysis, _worst(weight, number), weight)


def best_images(analysis: Analysis, number: int) -> list[Shot]:
    """Return the images whose right detections outweigh their errors most, by the sums of their scores."""
    case, shown = analysis.case, analysis.case.detections.scores >= analysis.score
    right = np.flatnonzero(shown & (analysis.figures.outcome == TRUE))
    images, weight = len(case.image_names), _weights(analysis)
    gain = np.bincount(case.detections.image[right], np.clip(case.detections.scores[right], 0, 1), minlength=images)
    order = sorted(np.flatnonzero(gain).tolist(), key=lambda image: weight[image] - gain[image])
    return _shots(analysis, order[:number], weight)


def shots(analysis: Analysis, chosen: Sequence[Shot]) -> str:
    """Return images with their objects, right detections and errors as HTML, without a script."""
    figures = []
    for shot in chosen:
        name, line = escape(analysis.case.image_names[shot.image]), _errors(analysis, shot) or "no error"
        drawing = draw(analysis, shot, f"{analysis.case.image_names[shot.image]}: {line}", size=SHOT_NAMES)
        words = f"<figcaption><strong>{name}</strong><br>{escape(line)}</figcaption>"
        figures.append(f'<figure class="shot">{drawing}{words}</figure>')
    return f'<div class="shots">{"".join(figures)}</div>'


def gallery(analysis: Analysis) -> Gallery:
    """Return the worst images, and those that the page shows for a key."""
    weight = _weights(analysis)
    images_of = _images_of(analysis, weight)
    chosen = _shots(analysis, _chosen(images_of, _worst(weight, NUMBER)), weight)
    keys: dict[int, list[str]] = defaultdict(list)
    for key, images in images_of.items():
        for image in images:
            keys[image].append(key)
    figures, characters, shown = [], 0, Counter()
    for rank, shot in enumerate(passing(chosen, "drawing", unit="img", plural="images"), 1):
        figures.append(_figure(analysis, shot, rank, keys[shot.image]))
        characters += len(figures[-1])
        shown.update(keys[shot.image])
        if characters > MOST_CHARACTERS:
            break
    return Gallery(_html(analysis, chosen, figures), dict(shown), {key: len(of) for key, of in images_of.items()})


def _weights(analysis: Analysis) -> np.ndarray:
    """Return the weight of each image's errors, see `Shot`."""
    case, images = analysis.case, len(analysis.case.image_names)
    false = np.flatnonzero(analysis.shown_false)
    probable = np.clip(case.detections.scores[false], 0, 1)
    missed = np.bincount(case.objects.image[analysis.shown_missed], minlength=images)
    return np.bincount(case.detections.image[false], probable, minlength=images) + missed


def _worst(weight: np.ndarray, number: int) -> list[int]:
    return [index for index in np.argsort(-weight, kind="stable")[:number].tolist() if weight[index] > 0]


def _shots(analysis: Analysis, chosen: Sequence[int], weight: np.ndarray) -> list[Shot]:
    case = analysis.case
    false = np.flatnonzero(analysis.shown_false)
    false = false[np.argsort(-case.detections.scores[false], kind="stable")]
    missed = case.objects.image[analysis.shown_missed]
    return [
        Shot(
            index,
            float(weight[index]),
            false[case.detections.image[false] == index].tolist(),
            int((missed == index).sum()),
        )
        for index in chosen
    ]


def _images_of(analysis: Analysis, weight: np.ndarray) -> dict[str, list[int]]:
    """Return {key: its images, the heaviest errors first}: kinds, then classes, then cells by their count."""
    case, errors = analysis.case, analysis.errors
    false, missed = np.flatnonzero(analysis.shown_false), np.flatnonzero(analysis.shown_missed)
    images, labels = case.detections.image[false], case.detections.label[false]
    missed_images, missed_labels = case.objects.image[missed], case.objects.label[missed]
    found: dict[str, np.ndarray] = {f"k{MEANING[kind][0]}": images[errors.kind[false] == kind] for kind in FALSE_KINDS}
    found[f"k{MEANING[Kind.MISS][0]}"] = missed_images
    every, all_labels = np.concatenate([images, missed_images]), np.concatenate([labels, missed_labels])
    for (label,), of in _groups(all_labels[:, None], every):
        found[f"c{label}"] = of
    events = analysis.confusion.events
    for (row, column), of in sorted(_groups(events[:, 1:], events[:, 0]), key=lambda group: -len(group[1])):
        found[f"m{row}-{column}"] = of
    unique = ((key, np.unique(of)) for key, of in found.items() if len(of))
    return {key: of[np.argsort(-weight[of], kind="stable")].tolist() for key, of in unique}


def _groups(keys: np.ndarray, values: np.ndarray) -> list[tuple[list[int], np.ndarray]]:
    """Return each different row of `keys` (N, K) with the `values` (N,) of its rows."""
    order = np.lexsort(keys.T[::-1])
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)]) if len(keys) else []
    return [(keys[start].tolist(), part) for start, part in zip(starts, np.split(values, starts)[1:])]


def _chosen(images_of: dict[str, list[int]], first: list[int]) -> list[int]:
    """Return `first` and further images, MOST at most, until each key has as many as WANTED."""
    chosen = dict.fromkeys(first)
    for key, images in images_of.items():
        wanted = WANTED[key[0]] - sum(image in chosen for image in images)
        further = [image for image in images if image not in chosen]
        chosen |= dict.fromkeys(further[: max(0, min(wanted, MOST - len(chosen)))])
    return list(chosen)


def _html(analysis: Analysis, chosen: Sequence[Shot], figures: list[str]) -> str:
    if not figures:
        return '<p class="note">No image has an error.</p>'
    files = analysis.case.image_files
    notes = []
    if files is None:
        notes.append("Boxes alone: give --images DIR to see the images.")
    elif any(not os.path.isfile(files[one.image]) for one in chosen):
        notes.append("Boxes alone where the image file is missing.")
    if any(len(one.false) > MOST_BOXES for one in chosen):
        notes.append(f"At most {MOST_BOXES} false detections are drawn on an image.")
    line = f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
    names = '<label><input type="checkbox" data-names> all names</label>'
    return line + _switches() + shots_gallery(figures, names)


def _switches() -> str:
    boxes = [("Truth", "objects", True), *((name, name, True) for name, _, _ in MEANING.values())]
    boxes.append(("Right", "right detections", False))
    inputs = "".join(
        f'<label><input type="checkbox" data-shows="{key}"{" checked" if on else ""}>'
        f'<span class="dot k{key}"></span>{title}</label>'
        for key, title, on in boxes
    )
    return f'<fieldset class="switches"><legend>Show</legend>{inputs}</fieldset>'


def _figure(analysis: Analysis, shot: Shot, rank: int, keys: list[str]) -> str:
    name, line = analysis.case.image_names[shot.image], _errors(analysis, shot) or "no error"
    number = len(shot.false) + shot.missed
    label = f"{rank}. {name}: {count(number, 'error')} ({line})" if number else f"{rank}. {name}: no error"
    hidden = "" if rank <= NUMBER and number else " hidden"
    return (
        f'<figure class="shot" data-keys="{" ".join(keys)}"{hidden}><button type="button" '
        f'aria-label="{escape(f"Enlarge {label}")}">{draw(analysis, shot, label)}</button>'
        f"<figcaption><strong>{rank}. {escape(name)}</strong><br>{escape(line)}"
        f'<span class="errors" hidden>{escape(_named(analysis, shot))}</span></figcaption></figure>'
    )


def _errors(analysis: Analysis, shot: Shot) -> str:
    kinds = analysis.errors.kind[shot.false].tolist()
    numbers = {MEANING[kind][0]: kinds.count(kind) for kind in FALSE_KINDS} | {MEANING[Kind.MISS][0]: shot.missed}
    return ", ".join(f"{number} {kind}" for kind, number in numbers.items() if number)


def _named(analysis: Analysis, shot: Shot) -> str:
    """Return "missed: 2 person, cup; Cls: dog 0.83 (cat)"."""
    case = analysis.case
    missed = case.objects.label[analysis.shown_missed & (case.objects.image == shot.image)].tolist()
    names = Counter(case.class_names[label] for label in missed).most_common()
    words = ", ".join(name if times == 1 else f"{times} {name}" for name, times in names)
    parts = [f"missed: {words}"] if words else []
    parts += [caption(analysis, row) for row in shot.false[:LISTED]]
    more = len(shot.false) - LISTED
    return "; ".join(parts) + (f"; and {more:,} more" if more > 0 else "")

"""Label images compared with label images: figures of segmentation without a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import DataError
from ..common.images import find_images, read_image
from ..common.text import count, some
from ..engine.image_progress import ImageProgress
from ..engine.loading import resolve_workers
from ..engine.results import UNIT
from .data.form import LabelForm, plain_form
from .data.labels import read_label
from .data.own import is_set, open_own
from .data.pairing import label_files, match_stems, open_labels, stem_below
from .data.sets import LabelledFiles, SegmentationSet
from .evaluation import VOID, figures_record
from .page import write_page
from .results import figures_table
from .scores import ImageScore, score_image, worst_table


@dataclass
class Comparison:
    """Predicted labels against true ones.

    Attributes:
        counts: as of `evaluation.metrics`.
        notes: what was noticed, a line each.
    """

    classes: list[str]
    counts: np.ndarray
    scores: list[ImageScore]
    truth: SegmentationSet
    predictions: dict[int, Path]
    form: LabelForm
    images: dict[int, Path]
    notes: list[str] = field(default_factory=list)

    def table(self, name: str) -> str:
        """Return the figures and the worst images as tables."""
        return f"{figures_table(name, self.classes, self.counts)}\n\n{worst_table(self.scores, self.classes)}"

    def to_json(self) -> dict[str, Any]:
        """Return the figures as fractions."""
        return {**figures_record(self.counts, self.classes), "images": len(self.scores), "unit": UNIT}

    def write_page(self, path: Path, title: str) -> None:
        """Write the page of the errors; see `page.write_page`."""
        write_page(path, self.classes, self.counts, self.scores, self._read, title=title)

    def _read(self, index: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        label = self.truth.label(index)
        predicted = read_label(self.predictions[index], self.form)
        file = self.images.get(index)
        image = None if file is None else read_image(file, channel_order="RGB")
        return (None if image is None or image.shape[:2] != label.shape else image), predicted, label


def compare(
    truth: Path,
    predictions: Path,
    data: Any,
    *,
    part: str = "val",
    classes: Sequence[str] = (),
    images: Path | None = None,
    same_form: bool = False,
) -> Comparison:
    """Compare the label images of two places, by their names.

    Args:
        truth: label images, or a set of one's own in any form of docs/segmentation.md.
        predictions: label images with the numbers of classes, or with the colours of the list of classes.
        data: DATA of a config: what the files of `truth` hold.
        part: of a set, which one is meant.
        classes: names by label; else a list that lies with the truth; without both, labels have numbers.
        images: folder of the images, for pages.
        same_form: the files of `predictions` hold what those of `truth` do.

    Raises:
        DataError: something is missing, wrong, or of another size.
    """
    numbered = [str(label) for label in range(VOID)]
    images_of_truth = _open_truth(truth, data, part, list(classes) or numbered, given=bool(classes))
    stems = _stems(images_of_truth, truth)
    labels = label_files(predictions)
    if predictions.is_file() and len(stems) == 1:
        found = dict.fromkeys(stems, predictions)
    else:
        found = match_stems(stems, labels)
    if not found:
        # The suffix is the truth's: a_mask.png for the prediction a.png.
        ends = match_stems({path: stem for stem, path in labels.items()}, {stem: key for key, stem in stems.items()})
        found = {index: path for path, index in ends.items()}
    missing = [index for index in stems if index not in found]
    if missing:
        raise DataError(
            f"{predictions}: holds no prediction for {images_of_truth.path(missing[0])} "
            f"({len(missing):,} of {count(len(stems), 'image')} have none)"
        )
    notes = []
    extra = sorted(set(map(str, labels.values())) - set(map(str, found.values())))
    if extra:
        notes.append(f"{predictions}: {count(len(extra), 'file')} without truth left out, first {extra[0]}")
    form = _form_of_predictions(images_of_truth, same_form)
    pictures = _images_of(images_of_truth, stems, images)
    outcome = Comparison(images_of_truth.classes, np.zeros(0), [], images_of_truth, found, form, pictures, notes)
    _count(outcome, list(stems))
    if images_of_truth.classes == numbered:
        _drop_unseen(outcome)
    return outcome


def _open_truth(truth: Path, data: Any, part: str, named: list[str], *, given: bool) -> SegmentationSet:
    if not truth.exists():
        raise DataError(f"{truth} does not exist; give label images or a data set as the ground truth")
    if is_set(truth, part):
        found = open_own(truth, part, None, data, named)
        if given and found.classes != named:
            raise DataError(f"{truth}: its classes are {some(found.classes)}; leave out those of --classes")
        return found
    return open_labels(truth, data, named, given=given)


def _stems(images: SegmentationSet, truth: Path) -> dict[int, str]:
    """Return what each image of the truth is called: below the folder, where it has one."""
    paths = [images.path(index) for index in range(len(images))]
    root = truth if truth.is_dir() and all(path.is_relative_to(truth) for path in paths) else None
    root = Path(os.path.commonpath([path.parent for path in paths])) if root is None or paths[0] == truth else root
    return {index: stem_below(path, root) for index, path in enumerate(paths)}


def _form_of_predictions(images: SegmentationSet, same_form: bool) -> LabelForm:
    plain = plain_form(images.classes)
    if not isinstance(images, LabelledFiles):
        return plain
    return images.form if same_form else replace(plain, colours=images.form.colours, labels=images.form.labels)


def _images_of(images: SegmentationSet, stems: dict[int, str], folder: Path | None) -> dict[int, Path]:
    """Return the image of each label that has one."""
    if folder is not None:
        return match_stems(stems, {stem_below(path, folder): path for path in find_images(folder)})
    pairs = {index: images.path(index) for index in stems}
    return {index: path for index, path in pairs.items() if str(path) != images.source(index)}


def _count(outcome: Comparison, indices: Sequence[int]) -> None:
    classes = outcome.classes

    def one(index: int) -> tuple[ImageScore, np.ndarray]:
        label, predicted = outcome.truth.label(index), read_label(outcome.predictions[index], outcome.form)
        if label is None:
            raise DataError(f"{outcome.truth.name}: has no labels; they stay with its evaluation server")
        if label.shape != predicted.shape:
            sizes = ["x".join(map(str, values.shape[::-1])) for values in (predicted, label)]
            raise DataError(
                f"{outcome.predictions[index]}: is {sizes[0]} pixels, its truth {sizes[1]}; they must be equal"
            )
        counts = count_pixels(predicted, label, len(classes))
        name = outcome.truth.path(index).name
        return score_image(index, name, counts, classes), counts

    total = np.zeros((len(classes), len(classes) + 1), np.int64)
    with (
        ThreadPoolExecutor(max(1, resolve_workers(-1, 1))) as pool,
        ImageProgress(len(indices), "compared", visible=len(indices) > 1) as progress,
    ):
        for score, counts in pool.map(one, indices):
            outcome.scores.append(score)
            total += counts
            progress.add(1)
    outcome.counts = total if total[:, -1].any() else total[:, :-1]


def count_pixels(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Return (classes, classes + 1) int64 counts, rows by truth; the last column has pixels predicted as void."""
    known = truth != VOID
    found = np.minimum(predicted[known].astype(np.int64), classes)
    places = truth[known].astype(np.int64) * (classes + 1) + found
    return np.bincount(places, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def _drop_unseen(outcome: Comparison) -> None:
    """Keep the numbers up to the highest one that occurs, where classes have no names."""
    counts = outcome.counts
    seen = np.flatnonzero(counts.sum(1) + counts[:, : len(counts)].sum(0))
    number = max(2, int(seen.max(initial=0)) + 1)
    kept = [*range(number), *range(len(counts), counts.shape[1])]
    outcome.counts, outcome.classes = counts[:number][:, kept], outcome.classes[:number]
    outcome.notes.append("no list of classes: they are called by their numbers (--classes names them)")

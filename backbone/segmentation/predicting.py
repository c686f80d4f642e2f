"""A trained network on image files: label images, overlays, and figures where the truth is known."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.errors import DataError
from ..common.files import write_json
from ..common.images import montage, read_image, rgb_picture
from ..common.images.inputs import find_inputs, picture_names, root_of
from ..common.images.save import write_jpeg
from ..engine.defaults import reading_of
from ..engine.image_progress import ImageProgress
from ..engine.record import LOGGER
from ..engine.results import UNIT
from .data.batches import whole_images
from .data.check import examine
from .data.cityscapes import numbers_of
from .data.folders import find_classes, image_of, is_label
from .data.form import form_of, plain_form
from .data.labels import read_label, write_label
from .data.pairing import label_files, match_stems, stem_below
from .data.sets import LabelledFiles
from .evaluation import Confusion, figures_record
from .page import write_page
from .pictures import caption_of, comparison
from .results import SHEET, figures_table
from .scores import ImageScore, score_image, worst_first, worst_table
from .segmenter import Segmenter

log = logging.getLogger(LOGGER)
PICTURE = "_segmentation.jpg"
LABELS, PAGE = "labels", "errors.html"
PREDICTIONS, RESULTS = "predictions.json", "results.json"
# Images from which on loader processes are worth their start.
SEVERAL = 16
SHOWN = 12  # images on a sheet


@dataclass
class Outcome:
    """What `predict_images` did.

    Attributes:
        images: that were read; without_truth: those of them that have none, where others do.
        skipped: {file: why it could not be read}.
        table: of the figures; "" without truth.
        written: what was written, in words.
    """

    images: int = 0
    without_truth: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    table: str = ""
    written: str = ""


def predict_images(
    segmenter: Segmenter, pattern: str, output: Path, *, truth: Path | None = None, pictures: bool = True
) -> Outcome:
    """Segment all images of `pattern`, and compare with the label images of `truth`.

    Writes into `output`: overlays with a legend, label images (labels/, class numbers in VOC's palette) and
    predictions.json, which has the share of each class in each image; with truth also results.json and errors.html.

    Args:
        truth: a label image, or a folder of them with the names of the images.
        pictures: whether overlays are drawn.

    Raises:
        DataError: no image was found, none could be read, or a label image is wrong; nothing is written then.
    """
    files = _find_files(pattern, output, truth)
    root, config, classes = root_of(pattern, files), segmenter.config.clone(), segmenter.classes
    config.defrost()
    if len(files) < SEVERAL:
        config.DATALOADER.NUM_WORKERS = 0
    images = _open(segmenter, files, root, truth)
    if truth is not None:
        _check_truth(images)
    shown = [str(file.relative_to(root)) for file in files]
    names = [str(name)[: -len(PICTURE)] for name in picture_names(files, root, PICTURE)]
    outcome, records, scores = Outcome(written="pictures, " * pictures + f"{LABELS}/, {PREDICTIONS}"), {}, []
    confusion = Confusion(len(classes))
    with ImageProgress(len(files), "segmented", visible=len(files) > 1) as progress:
        for index, image, label in whole_images(images, range(len(files)), config):
            progress.add(1)
            if isinstance(image, str):
                outcome.skipped[str(files[index])] = image
                log.warning("skipped: %s", image)
                continue
            predicted, score = segmenter(image), None
            if label is not None:
                counts = confusion.add(torch.from_numpy(predicted), torch.from_numpy(label)).numpy()
                score = score_image(index, shown[index], counts, classes)
                scores.append(score)
            write_label(output / LABELS / f"{names[index]}.png", predicted)
            if pictures:
                caption = caption_of(shown[index], score.miou if score else None)
                write_jpeg(
                    output / f"{names[index]}{PICTURE}",
                    comparison(rgb_picture(image), predicted, label, classes, caption),
                )
            records[index] = _record(shown[index], names[index], predicted, classes, score)
    if not records:
        first = next(iter(outcome.skipped.values()))
        raise DataError(f"none of the {len(files)} files of --input could be read; {first}")
    outcome.images = len(records)
    write_json(output / PREDICTIONS, {"classes": classes, "unit": UNIT, "images": list(records.values())})
    order = [score.index for score in worst_first(scores)] or list(records)
    if pictures and len(records) > 1:
        paths = [output / f"{names[index]}{PICTURE}" for index in order[:SHOWN]]
        write_jpeg(
            output / SHEET, montage([read_image(path, channel_order="RGB") for path in paths], columns=2, width=640)
        )
    if truth is not None:
        outcome.without_truth = len(records) - len(scores)
        outcome.written += f", {RESULTS}, {PAGE}"
        outcome.table = _compare(classes, images, names, output, confusion.counts.numpy(), scores)
    return outcome


def _find_files(pattern: str, output: Path, truth: Path | None) -> list[Path]:
    """Return the images that are meant: no label image of `truth`, and nothing that an earlier call has written."""
    if truth is not None and not truth.exists():
        raise DataError(f"--truth {truth}: no such label image or folder")
    files = find_inputs(pattern, output, PICTURE)
    if Path(pattern).is_file():
        return files
    left_out = [(output / LABELS).resolve(), (output / SHEET).resolve()]
    root = root_of(pattern, files).resolve()
    if truth is not None and truth.resolve() == root:
        stems = {file.stem for file in files}
        files = [file for file in files if not (is_label(file.name) and image_of(file.name, stems))]
    elif truth is not None and truth.resolve().is_relative_to(root):
        left_out.append(truth.resolve())
    files = [file for file in files if not any(file.resolve().is_relative_to(path) for path in left_out)]
    if not files:
        raise DataError(f"--input {pattern!r}: holds no image but label images and what an earlier call has written")
    return files


def _open(segmenter: Segmenter, files: list[Path], root: Path, truth: Path | None) -> LabelledFiles:
    """Return the images with their labels, as a set with the network's classes."""
    data, classes = segmenter.config.DATA, segmenter.classes
    if truth is None:
        form, labels = plain_form(classes), {}
    else:
        known = find_classes(data.CLASSES, [truth, *list(truth.absolute().parents)[:2]], classes)
        labels = _labels_of(files, root, truth, data)
        numbers = known.numbers or numbers_of(labels.values(), known.names)
        form = form_of(data, known.names, known.colours, numbers)
    images = LabelledFiles("--input", form, [(file, labels.get(file)) for file in files], has_truth=truth is not None)
    images.reading = reading_of(segmenter.config)
    return images.renumbered(classes, "the network")


def _labels_of(files: list[Path], root: Path, truth: Path, data: Any) -> dict[Path, Path]:
    """Return the label image of each file that has one: of the same path below the folder, else of the same name."""
    if truth.is_file():
        if len(files) > 1:
            raise DataError(f"--truth {truth}: is one label image for {len(files)} images; give a folder")
        return {files[0]: truth}
    labels = label_files(truth, {file.resolve() for file in files})
    pairs = match_stems({file: stem_below(file, root) for file in files}, labels, data.LABEL_SUFFIX)
    if pairs:
        return pairs
    raise DataError(f"--truth {truth}: holds no label image of the name of an image, such as {files[0].stem}.png")


def _check_truth(images: LabelledFiles) -> None:
    """Read all labels before the first image is predicted."""
    wrong = examine(images, 0).wrong
    if wrong:
        more = f" ({len(wrong)} of {len(images)} are wrong)" if len(wrong) > 1 else ""
        raise DataError(next(iter(wrong.values())) + more)


def _record(
    file: str, name: str, predicted: np.ndarray, classes: list[str], score: ImageScore | None
) -> dict[str, Any]:
    """Return what predictions.json says of an image."""
    pixels = np.bincount(predicted.ravel(), minlength=len(classes))
    shares = {classes[label]: pixels[label] / predicted.size for label in np.flatnonzero(pixels).tolist()}
    height, width = predicted.shape
    record = {"file_name": file, "labels": f"{LABELS}/{name}.png", "width": width, "height": height, "shares": shares}
    return record if score is None else {**record, "mIoU": score.miou, "wrong": score.wrong}


def _compare(
    classes: list[str],
    images: LabelledFiles,
    names: list[str],
    output: Path,
    counts: np.ndarray,
    scores: list[ImageScore],
) -> str:
    """Write results.json and the page, and return the tables."""
    write_json(output / RESULTS, {**figures_record(counts, classes), "images": len(scores), "unit": UNIT})
    form = plain_form(classes)

    def read(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, label = images.read(index)
        return rgb_picture(image), read_label(output / LABELS / f"{names[index]}.png", form), label

    write_page(output / PAGE, classes, counts, scores, read, title=f"Segmentation errors: {output.name}")
    return f"{figures_table('all images', classes, counts)}\n\n{worst_table(scores, classes)}"

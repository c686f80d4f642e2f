"""A trained classifier on image files: the likeliest classes as JSON and CSV, and Grad-CAM pictures."""

from __future__ import annotations

import csv
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..common.errors import ConfigError, DataError
from ..common.files import write_json, write_text
from ..common.images.inputs import find_inputs, picture_names, root_of
from ..common.images.save import write_jpeg
from ..common.text import table
from ..engine.image_progress import ImageProgress
from ..engine.loading import resolve_workers
from ..engine.record import LOGGER
from ..engine.results import UNIT
from .classifier import Classifier
from .guesses import SHOWN, Guesses

log = logging.getLogger(LOGGER)
PICTURE = "_grad_cam.jpg"
PREDICTIONS, TABLE = "predictions.json", "predictions.csv"
# Images that are read, and pass the network, together.
TOGETHER = 16
LINES = 20  # of the table that is printed


@dataclass
class Outcome:
    """What `predict_images` did.

    Attributes:
        guesses: of each image, by its name below the input.
        skipped: {file: why it could not be read}.
        written: what was written, in words.
    """

    guesses: dict[str, Guesses] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    written: str = f"{PREDICTIONS} and {TABLE}"

    def table(self) -> str:
        """Return the likeliest class of the first images."""
        rows = [(name, found.class_name, found.score) for name, found in list(self.guesses.items())[:LINES]]
        return table(rows, ("image", "class", "score"), digits=3)


def predict_images(
    classifier: Classifier, pattern: str, output: Path, *, top: int = SHOWN, pictures: bool = False
) -> Outcome:
    """Classify all images of `pattern`, and write the likeliest classes of each into `output`.

    predictions.json has them by image, predictions.csv a line each: image, rank from 1, class, score and label.

    Args:
        pattern: a file, a folder (searched through), a glob, or a list of these (.txt, or - for standard input).
        top: how many classes of each image.
        pictures: also draw each image with Grad-CAM's map of its likeliest class, into NAME_grad_cam.jpg.

    Raises:
        ConfigError: `top` is below 1.
        DataError: no image was found, or none could be read; no table is written then.
    """
    if top < 1:
        raise ConfigError(f"--top {top}: give the number of classes to write, 1 or more")
    files = find_inputs(pattern, output, PICTURE)
    root, outcome = root_of(pattern, files), Outcome()
    names = dict(zip(files, picture_names(files, root, PICTURE)))
    threads = max(1, resolve_workers(classifier.config.DATALOADER.NUM_WORKERS, 1))
    with (
        ThreadPoolExecutor(threads) as pool,
        ImageProgress(len(files), "classifying", visible=len(files) > 1) as progress,
    ):
        for start in range(0, len(files), TOGETHER):
            part = files[start : start + TOGETHER]
            read = dict(zip(part, pool.map(partial(_read, classifier), part)))
            for file, problem in read.items():
                if isinstance(problem, str):
                    outcome.skipped[str(file)] = problem
                    log.warning("skipped: %s", problem)
            images = {file: image for file, image in read.items() if not isinstance(image, str)}
            readers = [partial(images.__getitem__, file) for file in images]
            for file, found in zip(images, classifier.classify(readers, list(images.values())) if images else ()):
                if pictures:
                    write_jpeg(output / names[file], np.asarray(found.draw(top, heat=True)))
                # Its pixels are needed no longer.
                outcome.guesses[str(file.relative_to(root))] = _without_image(found)
            progress.add(len(part))
    if not outcome.guesses:
        first = next(iter(outcome.skipped.values()))
        raise DataError(f"none of the {len(files)} files of --input could be read; {first}")
    records = [{"file_name": name, "classes": found.to_json(top)} for name, found in outcome.guesses.items()]
    write_json(output / PREDICTIONS, {"classes": classifier.classes, "unit": UNIT, "images": records})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "score", "label"))
    for name, found in outcome.guesses.items():
        writer.writerows((name, rank, *values.values()) for rank, values in enumerate(found.to_json(top), 1))
    write_text(output / TABLE, buffer.getvalue())
    if pictures:
        outcome.written = f"pictures, {outcome.written}"
    return outcome


def _read(classifier: Classifier, file: Path) -> np.ndarray | str:
    try:
        return classifier.pixels(file)
    except DataError as error:
        return str(error)


def _without_image(found: Guesses) -> Guesses:
    def gone(*_: object) -> np.ndarray:
        raise DataError("the image is not kept; classify it again")

    return replace(found, read=gone, look=gone)

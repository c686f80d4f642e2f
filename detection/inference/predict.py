"""A trained detector on images: pictures and COCO results."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from tqdm import tqdm

from backbone import DataError
from backbone.common.files import write_json
from backbone.common.images import picture_of, read_image
from backbone.common.images.inputs import find_inputs, picture_names, root_of
from backbone.common.images.save import write_jpeg
from backbone.engine.loading import resolve_workers
from backbone.engine.record import LOGGER

from ..visualization import draw_objects
from .detector import Detector
from .listed import read_ids
from .pipeline import batch_size_of, pinned, run_pipeline
from .run import to_coco
from .saving import save_as
from .transform import TestTransform

log = logging.getLogger(LOGGER)
PICTURE = "_detections.jpg"
# A file, the id of its image, and its picture below the output folder.
Row = tuple[Path, int, Path]


def image_ids(files: list[Path]) -> list[int]:
    """Return COCO image ids: the numbers that the files are named by, as COCO's are, else 1, 2, 3, ..."""
    numbers = [int(file.stem) if file.stem.isdecimal() else None for file in files]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return numbers
    return list(range(1, len(files) + 1))


@dataclass
class Outcome:
    """What `predict` did: images, their detections, how many of these are drawn, the skipped files with the reason."""

    images: int
    detections: int
    drawn: int
    skipped: dict[str, str]


def predict(
    detector: Detector,
    pattern: str,
    output: Path,
    *,
    least_score: float,
    ids: Path | None = None,
    forms: Collection[str] = (),
) -> Outcome:
    """Detect on all images of `pattern`; write pictures, predictions.json and images.json into `output`.

    predictions.json is in COCO's results form, with every detection down to the model's own threshold; images.json has
    the images and categories that its ids mean. `least_score` holds for the pictures and the other `forms`.

    Args:
        forms: further ones to write, keys of `saving.FORMS`.
        ids: a JSON in COCO form, whose image and category ids are taken; files that it does not list are left out.

    Raises:
        DataError: no image was found, or none could be read; or as in `read_ids`.
    """
    files = find_inputs(pattern, output, PICTURE)
    root = root_of(pattern, files)
    records: list[dict[str, Any]] = []
    images, skipped, drawn = [], {}, 0
    numbers, category_ids = image_ids(files), detector.category_ids
    if ids is not None:
        listed = read_ids(ids, files, root, detector.classes, detector.category_ids)
        files, numbers, category_ids = listed.files, listed.ids, listed.category_ids
        if listed.note:
            log.warning(listed.note)
    config = detector.config
    order, channels = detector.channel_order, len(config.MODEL.PIXEL_MEAN)
    transform, device = TestTransform(config), config.MODEL.DEVICE

    def read(row: Row) -> dict[str, Any]:
        image = read_image(row[0], channel_order=order, channels=channels)
        return {**pinned(transform(image, order), device), "original": image}

    def finish(row: Row, sample: dict[str, Any], instances: Instances) -> tuple[dict[str, Any], list, int]:
        file, image_id, name = row
        shown = instances[instances.scores >= least_score]
        picture = draw(picture_of(sample["original"], order), shown, detector.classes)
        write_jpeg(output / name, picture[:, :, ::-1])
        size = {"width": sample["width"], "height": sample["height"]}
        image = {"id": image_id, "file_name": str(file.relative_to(root)), **size}
        return image, to_coco(instances, image_id, category_ids), len(shown)

    threads = resolve_workers(config.DATALOADER.NUM_WORKERS, 1)
    rows = list(zip(files, numbers, picture_names(files, root, PICTURE)))
    batch_size = batch_size_of(config)
    results = run_pipeline(detector.tested, rows, read, finish, batch_size=batch_size, threads=threads)
    for row, result in tqdm(results, total=len(rows), unit="img", disable=None if len(files) > 1 else True):
        if isinstance(result, DataError):
            skipped[str(row[0])] = str(result)
            log.warning("skipped: %s", result)
            continue
        image, found, shown = result
        images.append(image)
        records += found
        drawn += shown
    if not images:
        raise DataError(f"none of the {len(files)} files of --input could be read; {next(iter(skipped.values()))}")
    write_json(output / "predictions.json", records)
    categories = [{"id": id_, "name": name} for id_, name in zip(category_ids, detector.classes)]
    write_json(output / "images.json", {"images": images, "categories": categories})
    save_as(forms, output, images, records, dict(zip(category_ids, detector.classes)), least_score)
    return Outcome(len(images), len(records), drawn, skipped)


def draw(image: np.ndarray, instances: Instances, classes: list[str]) -> np.ndarray:
    """Return the BGR image with boxes, and masks and keypoints where there are any, drawn on it."""
    masks = instances.pred_masks.numpy() if instances.has("pred_masks") else None
    boxes = instances.pred_boxes.tensor.numpy()
    labels, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    points = instances.pred_keypoints.numpy() if instances.has("pred_keypoints") else None
    return draw_objects(image, boxes, labels, classes, scores=scores, masks=masks, keypoints=points)

"""A detector on the images of a ground truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backbone import DataError
from backbone.engine.image_progress import ImageProgress
from backbone.engine.loading import resolve_workers

from ..data.checks import check_coco, raise_on_errors
from ..data.own import find_place, read_place
from ..data.sets import DetectionSet, build_set
from .detector import Detector
from .listed import category_ids_of
from .pipeline import batch_size_of
from .run import detect, run_on_set, to_coco
from .transform import TestMapper, TestTransform


@dataclass(frozen=True)
class Truth:
    """A ground truth with its images.

    Attributes:
        source: as it was given; data: in COCO's form.
    """

    source: Path
    data: dict[str, Any]
    images: DetectionSet

    def mapper(self, detector: Detector) -> TestMapper:
        """Return the images as the detector takes them; predictions get the truth's category ids, by class name.

        Raises:
            DataError: the truth lacks a class of the detector.
        """
        ids = category_ids_of(f"--gt {self.source}", self.data, detector.classes, detector.category_ids)
        images = replace(self.images, classes=detector.classes, category_ids=ids)
        return TestMapper(images, TestTransform(detector.config))


def read_truth(path: Path, folder: Path | None = None, classes: Sequence[str] | None = None) -> Truth:
    """Read a ground truth in COCO's form, or of one's own in any (its part for validation).

    Args:
        folder: of the images, where it is not found by itself.
        classes: in their order, for forms that have the names of classes at each object; None for those that are found.

    Raises:
        DataError: it cannot be read, or has errors.
    """
    own = read_place(find_place(path, "val", folder), classes)
    faults = list(own.faults)
    if own.data is not None:
        faults += check_coco(own.data, own.folder, source=str(own.place.source))
    raise_on_errors(faults, str(own.place.source), flags=own.place.flags)
    truth = Truth(path, own.data, build_set(own.data, name=path.name, folder=own.folder))
    if not len(truth.images):
        raise DataError(f"{path}: has no images; give another --gt")
    return truth


def records_on(detector: Detector, truth: Truth) -> list[dict[str, Any]]:
    """Return what a detector finds on all images, as COCO results.

    Raises:
        DataError: as in `Truth.mapper`, or an image cannot be read.
    """
    config = detector.config
    return run_on_set(
        detector.tested,
        truth.mapper(detector),
        workers=resolve_workers(config.DATALOADER.NUM_WORKERS, 1),
        title=truth.source.name,
        batch_size=batch_size_of(config),
    )


def timed_records_on(
    detectors: Sequence[Detector], truth: Truth, title: str
) -> list[tuple[list[dict[str, Any]], float]]:
    """Return what `records_on` does for each form of one detector, and its median milliseconds of an image.

    Each image goes through all of them in turn, so that what else the machine does costs all the same. Reading and
    resizing are not in the time; NMS and pasted masks are.
    """
    mapper = truth.mapper(detectors[0])
    models, ids = [detector.tested for detector in detectors], mapper.images.category_ids
    records: list[list[dict[str, Any]]] = [[] for _ in models]
    times: list[list[float]] = [[] for _ in models]
    with ImageProgress(len(mapper.images), title, visible=True) as progress:
        for index in range(len(mapper.images)):
            sample = mapper(index)
            for number, model in enumerate(models):
                if not index:
                    # The first call of an engine prepares it.
                    detect(model, [sample])
                start = time.perf_counter()
                (found,) = detect(model, [sample])
                times[number].append(time.perf_counter() - start)
                records[number] += to_coco(found, sample["image_id"], ids)
            progress.add(1)
    return [(own, float(np.median(spent)) * 1000) for own, spent in zip(records, times)]

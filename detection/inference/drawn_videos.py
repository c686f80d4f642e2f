"""Copies of videos with their detections drawn, from the lines of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backbone import DataError
from backbone.engine.record import LOGGER

from ..data.keypoints import CENTRE
from ..visualization import draw_objects
from .inputs import VIDEO, Inputs
from .lines import read_detections
from .videos import write_video

log = logging.getLogger(LOGGER)


def draw_videos(output: Path, inputs: Inputs, classes: list[str], category_ids: list[int], least_score: float) -> None:
    """Write a copy of each video that has lines. It has all frames, at the rate of the original; one that was not
    detected on shows what the last one before it did."""
    index = {id_: label for label, id_ in enumerate(category_ids)}
    lines = _Ahead(read_detections(output))
    pictures = inputs.pictures()
    for place, row in enumerate(inputs):
        if row.kind != VIDEO:
            continue
        while lines.first is not None and inputs.place(lines.first["id"])[0] < place:
            lines.take()
        shown: dict[str, Any] | None = None

        def draw(number: int, frame: np.ndarray, place: int = place) -> np.ndarray:
            nonlocal shown
            while (first := lines.first) is not None and inputs.place(first["id"]) <= (place, number + 1):
                shown = lines.take()
            return frame if shown is None else draw_line(frame, shown, classes, index, least_score)

        if lines.first is not None and inputs.place(lines.first["id"])[0] == place:
            try:
                write_video(row.path, output / pictures[place], draw)
            except DataError as error:
                log.warning("not drawn: %s", error)


class _Ahead:
    """An iterator of which one sees the next value; None at its end."""

    def __init__(self, values: Iterator[dict[str, Any]]) -> None:
        self._values = values
        self.first = next(values, None)

    def take(self) -> dict[str, Any] | None:
        taken, self.first = self.first, next(self._values, None)
        return taken


def draw_line(
    image: np.ndarray, line: dict[str, Any], classes: list[str], index: dict[int, int], least_score: float
) -> np.ndarray:
    """Return a BGR image with the detections of a line drawn on it.

    Args:
        index: class indices by category id.
    """
    found = [record for record in line["detections"] if record["score"] >= least_score]
    if not found:
        return image
    boxes = np.array([record["bbox"] for record in found], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    masks = points = None
    if "segmentation" in found[0]:
        from pycocotools import mask as coco_mask

        masks = np.stack([coco_mask.decode(record["segmentation"]) for record in found]).astype(bool)
    if "keypoints" in found[0]:
        points = np.array([record["keypoints"] for record in found]).reshape(len(found), -1, 3) + (CENTRE, CENTRE, 0)
    labels, scores = [index[record["category_id"]] for record in found], [record["score"] for record in found]
    return draw_objects(image, boxes, labels, classes, scores=scores, masks=masks, keypoints=points)

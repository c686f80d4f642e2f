"""Masks in arrays against the list of them, and training targets with masks against a loop over the annotations."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import PolygonMasks

from detection.data.mapper import Mapper, Resize
from detection.data.segmentations import Segmentations, joined_segmentations
from detection.data.sets import build_set
from detection.data.view import FLIPS, View

TRIANGLE, SQUARE = [1, 2.1, 3, 4, 5, 6], [0.1, 0, 9, 0, 9, 9, 0, 9]
RUNS = {"size": [4, 6], "counts": [3, 5, 16]}
ITEMS = [[TRIANGLE, SQUARE], None, RUNS, [[1, 2, 3, 4], SQUARE], {}, [], [TRIANGLE]]
KEPT = [[TRIANGLE, SQUARE], [], RUNS, [SQUARE], [], [], [TRIANGLE]]


def plain(found: list[Any]) -> list[Any]:
    return [item if isinstance(item, dict) else [polygon.tolist() for polygon in item] for item in found]


def test_kept_masks_are_those_of_the_list():
    kept = Segmentations.of(iter(ITEMS))
    nothing = Segmentations.of([])
    for masks, expected in [
        (kept, KEPT),
        (pickle.loads(pickle.dumps(kept)), KEPT),
        (joined_segmentations([kept, nothing, kept]), KEPT + KEPT),
        (nothing, []),
    ]:
        assert len(masks) == len(expected) and masks.present().tolist() == [bool(item) for item in expected]
        for start in range(len(expected) + 1):
            for end in range(start, len(expected) + 1):
                assert plain(masks.between(start, end)) == expected[start:end]


@pytest.mark.parametrize("flip", ["none", *FLIPS])
def test_targets_of_coco_are_those_of_a_loop_to_the_bit(shared_data, flip):
    data = json.loads((shared_data / "coco" / "annotations" / "instances_val2017.json").read_text())
    images = build_set(data, name="coco", folder=shared_data, masks=True)
    mapper, compared = Mapper(images, resize=Resize((800,), 1333), channel_order="RGB"), 0
    for index, record in enumerate(data["images"]):
        size = (record["width"], record["height"])
        new = mapper.resize.target(*size, 800)

        def moved(values: list[float], size=size, new=new) -> np.ndarray:
            points = np.array(values, np.float64)
            for axis, name in enumerate(("horizontal", "vertical")):
                points[axis::2] *= new[axis] / size[axis]
                if flip in (name, "both"):
                    points[axis::2] = new[axis] - points[axis::2]
            return points

        objects = [item for item in data["annotations"] if item["image_id"] == record["id"] and not item["iscrowd"]]
        target = mapper.targets(index, View.of(size, new, flip))
        polygons = [[moved(polygon) for polygon in item["segmentation"]] for item in objects]
        corners = [moved(row).reshape(2, 2) for row in images.boxes[images.starts[index] :][: len(objects)].tolist()]
        boxes = [[*corner.min(axis=0).clip(0), *np.minimum(corner.max(axis=0), new)] for corner in corners]
        expected = PolygonMasks(polygons).polygons
        assert len(target) == len(target.gt_masks) == len(expected)
        assert torch.equal(target.gt_boxes.tensor, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        for found, others in zip(target.gt_masks.polygons, expected):
            assert [polygon.dtype for polygon in found] == [np.float64] * len(others)
            assert all(map(np.array_equal, found, others)) and len(found) == len(others)
            compared += len(found)
    assert compared > 300

"""Detection sets in memory, against pycocotools' reading of the same annotations."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from backbone.common.errors import DataError
from detection.data.sets import DetectionSet, build_set, join_sets


def small_data(annotations: list[dict], categories: dict[int, str] | None = None) -> dict:
    """Two images of 60 x 40 pixels; annotations get the keys that they lack."""
    defaults = {"image_id": 7, "category_id": 1, "iscrowd": 0}
    return {
        "images": [{"id": id_, "width": 60, "height": 40, "file_name": f"{id_}.png"} for id_ in (9, 7)],
        "categories": [{"id": id_, "name": name} for id_, name in (categories or {1: "cat"}).items()],
        "annotations": [{"id": index, **defaults, **annotation} for index, annotation in enumerate(annotations, 1)],
    }


def build(annotations: list[dict], **keywords) -> DetectionSet:
    return build_set(small_data(annotations, **keywords), name="small", folder=Path("images"), masks=True)


def masks_of(images: DetectionSet, rows: slice) -> list[Any]:
    """The segmentations of some objects, as in the JSON."""
    found = images.segmentations.between(rows.start, rows.stop)
    return [mask if isinstance(mask, dict) else [polygon.tolist() for polygon in mask] for mask in found]


@pytest.fixture(scope="module")
def coco_val(shared_data) -> tuple[DetectionSet, COCO]:
    path = shared_data / "coco" / "annotations" / "instances_val2017.json"
    with contextlib.redirect_stdout(io.StringIO()):
        peer = COCO(str(path))
    folder = shared_data / "coco" / "val2017"
    return build_set(json.loads(path.read_text()), name="coco_2017_val", folder=folder, masks=True), peer


def test_real_coco_equals_pycocotools(coco_val):
    images, peer = coco_val
    assert len(images) == len(peer.imgs) == 50
    assert images.classes == [peer.cats[id_]["name"] for id_ in sorted(peer.cats)]
    assert images.category_ids == sorted(peer.getCatIds())
    assert images.skipped == 0
    for index in range(len(images)):
        record = peer.imgs[images.image_ids[index]]
        assert images.path(index).name == record["file_name"]
        assert images.path(index).is_file()
        assert images.size(index) == (record["width"], record["height"])
        rows = slice(images.starts[index], images.starts[index + 1])
        expected = peer.loadAnns(peer.getAnnIds(imgIds=[record["id"]]))
        boxes = np.array([annotation["bbox"] for annotation in expected]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        # COCO's boxes are rounded to a hundredth of a pixel and may stand out of the image by as much.
        assert np.abs(images.boxes[rows] - boxes).max(initial=0) < 0.011
        assert images.boxes[rows].dtype == np.float32
        labels = [images.category_ids[label] for label in images.labels[rows]]
        assert labels == [annotation["category_id"] for annotation in expected]
        assert images.crowd[rows].tolist() == [bool(annotation["iscrowd"]) for annotation in expected]
        assert masks_of(images, rows) == [annotation["segmentation"] for annotation in expected]


def test_images_without_annotations_and_crowds_of_real_coco(coco_val):
    images, _ = coco_val
    empty = {images.image_ids[index] for index in range(50) if images.starts[index] == images.starts[index + 1]}
    assert empty == {58636, 226111}
    assert images.crowd.sum() == 5
    assert len(images.boxes) == 382
    assert set(range(50)) - set(images.trainable()) == {list(images.image_ids).index(id_) for id_ in empty}


def test_category_ids_with_gaps_in_any_order():
    images = build([{"category_id": 90, "bbox": [1, 1, 5, 5]}, {"category_id": 0, "bbox": [1, 1, 6, 6]}],
                   categories={90: "dog", 0: "cat", 17: "cow"})  # fmt: skip
    assert images.classes == ["cat", "cow", "dog"]
    assert images.category_ids == [0, 17, 90]
    assert images.labels.tolist() == [2, 0]


def test_boxes_are_clipped_and_unusable_ones_counted():
    nan, inf = float("nan"), float("inf")
    boxes = [
        *([-5, -5, 15, 15], [50, 30, 100, 100]),
        *([nan, 1, 2, 2], [1, 1, nan, 2], [5, 5, 0, 5], [5, 5, 5, -1], [60, 1, 5, 5], [-9, 1, 9, 9], [1, 1, inf, nan]),
    ]
    images = build([{"bbox": box} for box in boxes])
    assert images.boxes.tolist() == [[0, 0, 10, 10], [50, 30, 60, 40]]
    assert images.skipped == 7
    assert len(images.labels) == len(images.crowd) == len(images.segmentations) == 2
    assert images.starts.tolist() == [0, 0, 2]


def test_annotations_stand_by_image_in_their_own_order():
    ids = [7, 9] * 20
    images = build([{"image_id": id_, "bbox": [0, 0, 1 + index, 1]} for index, id_ in enumerate(ids)])
    assert images.image_ids.tolist() == [9, 7]
    assert images.starts.tolist() == [0, 20, 40]
    assert images.boxes[:, 2].tolist() == [*range(2, 41, 2), *range(1, 40, 2)]


def test_trainable_leaves_out_crowds_and_empty_images():
    images = build([{"image_id": 7, "bbox": [0, 0, 5, 5]}, {"image_id": 9, "bbox": [0, 0, 5, 5], "iscrowd": 1}])
    assert images.trainable().tolist() == [1]


def test_keys_that_may_be_missing():
    data = small_data([{"bbox": [0, 0, 5, 5]}])
    del data["annotations"][0]["iscrowd"]
    images = build_set(data, name="small", folder=Path())
    assert not images.crowd.any()
    assert images.segmentations is None
    del data["annotations"]
    images = build_set(data, name="small", folder=Path())
    assert images.boxes.shape == (0, 4)
    assert images.starts.tolist() == [0, 0, 0]
    assert len(images.trainable()) == 0


def test_join_keeps_every_image_with_its_annotations(coco_val):
    first, _ = coco_val
    second = build([{"image_id": 9, "bbox": [0, 0, 5, 5]}, {"bbox": [3, 4, 0, 0]}])
    second.classes = list(first.classes)
    joined = join_sets([first, second, first])
    assert len(joined) == 102
    assert joined.name == "coco_2017_val + small + coco_2017_val"
    assert joined.skipped == 1
    for part, offset in ((first, 0), (second, 50), (first, 52)):
        for index in range(len(part)):
            assert joined.path(offset + index) == part.path(index)
            assert joined.size(offset + index) == part.size(index)
            assert joined.image_ids[offset + index] == part.image_ids[index]
            rows = slice(*joined.starts[offset + index : offset + index + 2])
            own = slice(*part.starts[index : index + 2])
            for name in ("boxes", "labels", "crowd"):
                assert np.array_equal(getattr(joined, name)[rows], getattr(part, name)[own])
            assert masks_of(joined, rows) == masks_of(part, own)
    assert len(joined.boxes) == joined.starts[-1]


def test_join_of_one_and_of_sets_with_other_classes():
    one, other = build([]), build([], categories={1: "dog"})
    assert join_sets([one]) is one
    with pytest.raises(DataError, match="categories differ"):
        join_sets([one, other])

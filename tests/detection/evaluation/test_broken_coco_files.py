"""Broken ground truth and predictions: each fault is named with its place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import small_predictions, small_truth

from backbone.common.errors import DataError
from detection.evaluation import evaluate_coco, load_ground_truth


def changed(value: Any, path: str, new: Any) -> Any:
    """Return a copy in which the value at "annotations.0.bbox" is new; `...` takes it away."""
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    copied = copy.deepcopy(value)
    target = copied
    for parent in parents:
        target = target[parent]
    if new is ...:
        del target[last]
    else:
        target[last] = new
    return copied


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("images", ..., "no 'images'"),
        ("annotations", ..., "no 'annotations'; the lists of test images"),
        ("categories", ..., "no 'categories'"),
        ("annotations", {}, r"'annotations' is {}, not a list"),
        ("annotations.1", 5, r"annotations\[1\] is 5, not an object"),
        ("images.0.id", ..., r"images\[0\]: no 'id'"),
        ("images.1.id", 7, r"images\[1\] \(id 7\): repeats the id of images\[0\]"),
        ("images.1.id", "8", "mixes ids that are numbers and texts"),
        ("images.1.id", [8], "'id' must be an integer"),
        ("images.1.height", "40", "must be positive integers"),
        ("categories.1.id", 3, r"categories\[1\] \(id 3\): repeats"),
        (
            "annotations.1.image_id",
            99,
            "1 record of annotations with image_id 99, which the images of .* 2 ids from 7 to 8",
        ),
        ("annotations.1.image_id", ..., r"annotations\[1\]: no 'image_id'"),
        ("annotations.1.category_id", 4, "category_id 4, which the categories of"),
        ("annotations.2.bbox", ..., r"annotations\[2\] \(image_id 8\): no 'bbox'"),
        ("annotations.2.bbox", [], "no 'bbox'"),
        ("annotations.2.bbox", [1, 2, 3], "'bbox' must be a list of 4 numbers, not"),
        ("annotations.2.bbox", 7, "'bbox' must be a list of 4 numbers, not 7"),
        ("annotations.2.bbox", [1, 2, "3", 4], "'bbox' must be a list of 4 numbers"),
        ("annotations.2.bbox", [1, 2, NAN, 4], "'bbox' is not finite"),
        ("annotations.2.bbox", [1, 2, 3, -4], "negative width or height; boxes are .x, y, width, height."),
        ("annotations.2.area", "large", "'area' must be a number, not 'large'"),
        ("annotations.2.iscrowd", 2, "'iscrowd' must be 0 or 1, not 2"),
    ],
)
def test_broken_ground_truth_is_named(path: str, new: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(changed(small_truth(), path, new), small_predictions())
    assert "\n" not in str(caught.value)


def test_repeated_annotation_ids_are_refused_with_the_mend() -> None:
    truth = small_truth()
    for annotation in truth["annotations"]:
        annotation["id"] = 5
    with pytest.raises(DataError, match=r"annotations\[1\] \(id 5, image_id 7\): repeats .*tools/check_data.py --fix"):
        evaluate_coco(truth, small_predictions())


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("1", "text", r"predictions\[1\] is 'text', not an object"),
        ("1.score", ..., r"predictions\[1\] \(image_id 8\): no 'score'"),
        ("1.score", NAN, "'score' is not finite: nan"),
        ("1.score", "high", "'score' must be a number"),
        ("1.bbox", ..., r"predictions\[1\] \(image_id 8\): no 'bbox'"),
        ("0.bbox", ..., r"predictions\[0\] \(image_id 7\): no 'bbox'"),
        ("1.bbox", [1, 2, 3, INF], "'bbox' is not finite"),
        ("1.bbox", [10, 10, -5, 5], "negative width"),
        (
            "1.image_id",
            1234,
            "1 record of predictions with image_id 1234, which the images of ground truth do not have",
        ),
        ("1.image_id", "8", "as text"),
        ("1.image_id", None, "no 'image_id'"),
        ("1.category_id", 1, "category_id 1, which the categories of ground truth do not have"),
    ],
)
def test_broken_predictions_are_named(path: str, new: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(small_truth(), changed(small_predictions(), path, new))
    assert "\n" not in str(caught.value)


def test_many_unknown_images_are_counted() -> None:
    predictions = [{"image_id": n, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.1} for n in range(100, 150)]
    with pytest.raises(DataError, match="50 records of predictions with image_id 100, 101, 102, ..., which"):
        evaluate_coco(small_truth(), predictions)


def test_exchanged_files_are_recognised() -> None:
    with pytest.raises(DataError, match="looks like predictions"):
        evaluate_coco(small_predictions(), small_truth())
    with pytest.raises(DataError, match="looks like ground truth"):
        evaluate_coco(small_truth(), small_truth())


RLE = {"size": [40, 60], "counts": [100, 50, 2250]}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], r"annotations\[1\] .*not an even number of finite numbers"),
        ([[1, 2, 3, 4, 5, NAN]], "not an even number of finite numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "not an even number of finite numbers"),
        ("mask", "must be run lengths, or polygons"),
        ({**RLE, "size": [60, 40]}, r"for size \[60, 40\], and its image is \[40, 60\]"),
        ({**RLE, "counts": [100, 50]}, "do not add up to 40 x 60"),
        ({**RLE, "counts": "zz~"}, "not run lengths"),
        ({**RLE, "counts": "04P"}, "not run lengths"),
        ({"size": [40, 60]}, "not run lengths"),
        ({**RLE, "counts": "d3b1"}, "do not add up to 40 x 60"),
    ],
)
def test_broken_masks_are_named(segmentation: Any, message: str) -> None:
    truth = small_truth()
    for annotation in truth["annotations"]:
        annotation["segmentation"] = RLE
    broken = changed(truth, "annotations.1.segmentation", segmentation)
    with pytest.raises(DataError, match=message):
        evaluate_coco(broken, [], "segm")


@pytest.mark.parametrize("segmentation", [..., [], None, [[1, 2, 3, 4]], [[], [1, 2]]])
def test_an_annotation_without_a_mask_is_a_region_to_ignore(segmentation: Any) -> None:
    truth = small_truth()
    for annotation in truth["annotations"]:
        annotation["segmentation"] = RLE
    without = changed(truth, "annotations.1.segmentation", segmentation)
    x, y, w, h = truth["annotations"][1]["bbox"]
    box = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    ignored = changed(changed(truth, "annotations.1.segmentation", box), "annotations.1.iscrowd", 1)
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.9 - i / 10, "segmentation": RLE}
        for i, a in enumerate(truth["annotations"])
    ]
    loaded = load_ground_truth(without, "segm")
    assert loaded.without_mask == 1
    assert evaluate_coco(loaded, found, "segm").without_mask == 1
    assert evaluate_coco(loaded, found, "segm").to_json() == evaluate_coco(ignored, found, "segm").to_json()
    for annotation in without["annotations"]:
        annotation["segmentation"] = []
    with pytest.raises(DataError, match="no 'segmentation', as in all the others; masks need some"):
        evaluate_coco(without, [], "segm")


def test_what_masks_and_keypoints_need_is_named() -> None:
    truth = small_truth()
    for annotation in truth["annotations"]:
        annotation["segmentation"] = RLE
    with pytest.raises(DataError, match=r"predictions\[0\] .*no 'segmentation'"):
        evaluate_coco(truth, small_predictions(), "segm")
    del truth["images"][1]["height"]
    with pytest.raises(DataError, match=r"annotations\[2\] .*no 'height' and 'width'"):
        evaluate_coco(truth, [], "segm")
    with pytest.raises(DataError, match="no annotation has 'keypoints'"):
        evaluate_coco(truth, [], "keypoints")
    truth["annotations"][0]["keypoints"] = [1, 2, 2]
    with pytest.raises(DataError, match="'keypoints' must be a list of 51 numbers"):
        evaluate_coco(truth, [], "keypoints")
    truth["annotations"][0]["keypoints"] = [1, 2, 2] * 17
    with pytest.raises(DataError, match="no 'keypoints'"):
        evaluate_coco(truth, small_predictions(), "keypoints")


def test_polygons_and_numpy_values_serve_as_predictions() -> None:
    truth = small_truth()
    for annotation in truth["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    predictions = [
        {
            "image_id": np.int64(annotation["image_id"]),
            "category_id": np.int64(annotation["category_id"]),
            "segmentation": annotation["segmentation"],
            "bbox": np.array(annotation["bbox"], dtype=np.float32),
            "score": np.float32(0.5),
        }
        for annotation in truth["annotations"]
    ]
    for iou_type in ("bbox", "segm"):
        assert evaluate_coco(truth, predictions, iou_type).summary["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b'[{"image_id": 7, "category_id"', "truncated|ends after"),
        (b"image_id,score\n", "line 1"),
        (b'{"bbox": 3}', "give predictions: a list"),
        (b"null", "is None, not a list"),
        (b'[{"image_id": 7, "category_id": 3, "bbox": [0, 0, NaN, 1], "score": 1}]', "not finite"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "predictions.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(small_truth(), file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.json"):
        evaluate_coco(tmp_path / "nowhere.json", [])

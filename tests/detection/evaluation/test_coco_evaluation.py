"""What evaluation returns, and what it makes of empty, odd and broken files."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import random_case, reference

from backbone.common.errors import DataError, UserError
from detection.evaluation import CocoMetrics, engines, evaluate_coco, load_ground_truth

ENGINES = ("hotcoco", "faster-coco-eval", "pycocotools")
BOX_KEYS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
KEYPOINT_KEYS = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]


def small_truth() -> dict[str, Any]:
    """Two images of 40 x 60; a cat and a dog in the first, a dog in the second; nothing optional."""
    return {
        "images": [{"id": 7, "height": 40, "width": 60}, {"id": 8, "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [2, 2, 10, 10]},
            {"image_id": 7, "category_id": 9, "bbox": [20, 5, 8, 20]},
            {"image_id": 8, "category_id": 9, "bbox": [5, 5, 30, 30]},
        ],
    }


def small_predictions() -> list[dict[str, Any]]:
    """The cat exactly, one of the two dogs."""
    return [
        {"image_id": 7, "category_id": 3, "bbox": [2, 2, 10, 10], "score": 0.9},
        {"image_id": 8, "category_id": 9, "bbox": [5, 5, 30, 30], "score": 0.8},
    ]


def need(engine: str) -> None:
    pytest.importorskip(engine.replace("-", "_"))


def test_figures_names_and_forms() -> None:
    metrics = evaluate_coco(small_truth(), small_predictions())
    assert list(metrics.summary) == BOX_KEYS
    # pycocotools's precision of 1 lacks an epsilon; of 101 recalls, a half of the dogs reaches 51.
    assert metrics.per_class["cat"]["AP"] == pytest.approx(1)
    assert metrics.per_class["dog"]["AP50"] == pytest.approx(51 / 101)
    assert metrics.summary["AP"] == pytest.approx((1 + 51 / 101) / 2)
    assert metrics.summary["AR100"] == pytest.approx(0.75)
    assert metrics.summary["APl"] == -1
    assert metrics.precision.shape == (10, 101, 2, 4, 3)
    assert metrics.recall.shape == (10, 2, 4, 3)
    assert (len(metrics.iou_thresholds), len(metrics.recall_thresholds), len(metrics.area_names)) == (10, 101, 4)
    figures = metrics.to_json()
    assert figures == {"bbox": {**metrics.summary, "per_class": metrics.per_class}}
    assert json.loads(json.dumps(figures)) == figures
    lines = metrics.table().splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == BOX_KEYS
    assert "0.752" in lines[2] and " - " in lines[2]
    assert [line.split()[1] for line in lines[-2:]] == ["cat", "dog"]


def test_class_figures_are_those_of_pycocotools() -> None:
    truth, predictions = random_case("bbox", 0)
    precision = reference(truth, predictions, "bbox").precision[:, :, :, 0, 2]
    metrics = evaluate_coco(truth, predictions)
    for place, name in enumerate(metrics.class_names):
        for key, values in (("AP", precision[:, :, place]), ("AP50", precision[0, :, place])):
            expected = np.mean(values[values > -1]) if (values > -1).any() else -1
            assert metrics.per_class[name][key] == expected
    assert -1 in {of["AP"] for of in metrics.per_class.values()}


def test_keypoint_figures_have_their_names() -> None:
    metrics = evaluate_coco(*random_case("keypoints", 0), "keypoints")
    assert list(metrics.summary) == KEYPOINT_KEYS
    assert metrics.area_names == ("all", "medium", "large")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_no_predictions_give_zero(iou_type: str, engine: str, capfd: pytest.CaptureFixture[str]) -> None:
    need(engine)
    truth, predictions = random_case(iou_type, 1)
    expected = [0.0 if value > -1 else -1.0 for value in reference(truth, predictions, iou_type).stats]
    capfd.readouterr()
    assert list(evaluate_coco(truth, [], iou_type, engine=engine).summary.values()) == expected
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("emptied", ["annotations", "categories", "images"])
def test_no_ground_truth_gives_minus_one(emptied: str, engine: str) -> None:
    need(engine)
    truth = {**small_truth(), "annotations": [], emptied: []}
    predictions = small_predictions() if emptied == "annotations" else []
    metrics = evaluate_coco(truth, predictions, engine=engine)
    assert set(metrics.summary.values()) == {-1.0}
    assert metrics.table()


@pytest.mark.parametrize("engine", ENGINES)
def test_ids_may_be_zero_negative_or_text(engine: str) -> None:
    need(engine)
    truth, predictions = random_case("bbox", 6)
    expected = evaluate_coco(truth, predictions)
    order = {
        key: {value: place for place, value in enumerate(sorted(row["id"] for row in truth[key]))}
        for key in ("images", "categories")
    }
    for annotation in truth["annotations"]:
        annotation["id"] -= 3
    for new_id in (lambda place: place, lambda place: place - 4, lambda place: f"{place:04}"):
        changed, found = copy.deepcopy((truth, predictions))
        for key in ("images", "categories"):
            for row in changed[key]:
                row["id"] = new_id(order[key][row["id"]])
        for row in (*changed["annotations"], *found):
            row["image_id"] = new_id(order["images"][row["image_id"]])
            row["category_id"] = new_id(order["categories"][row["category_id"]])
        metrics = evaluate_coco(changed, found, engine=engine)
        assert metrics.summary == pytest.approx(expected.summary, abs=1e-12)


def test_missing_values_are_filled() -> None:
    truth = small_truth()
    mask = {"image_id": 8, "category_id": 3, "segmentation": [[0, 0, 6, 0, 6, 4, 0, 4]], "iscrowd": None}
    truth["annotations"].append(mask)
    loaded = load_ground_truth(truth)
    assert loaded.areas.tolist() == [100, 160, 900, 24]
    assert loaded.boxes[3].tolist() == [0, 0, 6, 4]
    assert not loaded.crowd.any()
    assert evaluate_coco(loaded, small_predictions()).summary["AR100"] == pytest.approx(0.5)
    with pytest.raises(UserError, match="loaded for 'bbox'"):
        evaluate_coco(loaded, small_predictions(), "segm")


def test_keypoints_may_be_missing_from_some_annotations() -> None:
    truth, predictions = random_case("keypoints", 0)
    expected = evaluate_coco(truth, predictions, "keypoints").summary
    for annotation in truth["annotations"]:
        if annotation["num_keypoints"] == sum(value > 0 for value in annotation["keypoints"][2::3]):
            del annotation["num_keypoints"]
    assert evaluate_coco(truth, predictions, "keypoints").summary == expected
    truth["annotations"][0].pop("keypoints")
    assert load_ground_truth(truth, "keypoints").labelled_keypoints[0] == 0


def test_classes_of_one_name_stay_apart() -> None:
    truth = small_truth()
    truth["categories"][1]["name"] = "cat"
    assert list(evaluate_coco(truth, small_predictions()).per_class) == ["cat (id 3)", "cat (id 9)"]


def test_other_limits_of_detections() -> None:
    truth, predictions = random_case("bbox", 5, crowded=True)
    first = evaluate_coco(truth, predictions, max_detections=(300, 5))
    assert list(first.summary)[6:8] == ["AR5", "AR300"]
    assert first.summary["AR300"] > evaluate_coco(truth, predictions).summary["AR100"] > first.summary["AR5"]
    assert first.summary == evaluate_coco(truth, predictions, max_detections=(5, 300), engine="pycocotools").summary
    for wrong in ((), (0, 10), (1.5,)):
        with pytest.raises(UserError, match="positive integers"):
            evaluate_coco(truth, predictions, max_detections=wrong)


def test_unknown_engine_and_iou_type_name_the_known() -> None:
    with pytest.raises(UserError, match="'fast'; known: auto, hotcoco, faster-coco-eval, pycocotools"):
        evaluate_coco(small_truth(), [], engine="fast")
    with pytest.raises(UserError, match="'box'; known: bbox, segm, keypoints"):
        evaluate_coco(small_truth(), [], "box")


def test_a_missing_engine_gives_way_to_pycocotools(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with caplog.at_level(logging.WARNING):
        metrics = evaluate_coco(small_truth(), small_predictions())
    assert metrics.engine == "pycocotools"
    assert "hotcoco is not installed" in caplog.text
    with pytest.raises(UserError, match="pip install hotcoco"):
        evaluate_coco(small_truth(), small_predictions(), engine="hotcoco")


@pytest.mark.parametrize("failure", [RuntimeError, BaseException])
def test_a_failing_engine_gives_way_to_pycocotools(
    failure: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> engines.Curves:
        raise failure("broken")

    expected = evaluate_coco(small_truth(), small_predictions())
    monkeypatch.setitem(engines.ENGINES, "hotcoco", fail)
    with caplog.at_level(logging.WARNING):
        metrics = evaluate_coco(small_truth(), small_predictions())
    assert (metrics.engine, metrics.summary) == ("pycocotools", expected.summary)
    assert "hotcoco failed (broken)" in caplog.text


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


def test_evaluation_needs_no_detectron2() -> None:
    code = "import sys, detection.evaluation; sys.exit('detectron2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_metrics_hold_plain_values() -> None:
    metrics: CocoMetrics = evaluate_coco(small_truth(), small_predictions())
    assert {type(value) for value in metrics.summary.values()} == {float}

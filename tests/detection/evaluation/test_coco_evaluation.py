"""What evaluation returns, and what it makes of empty and odd files."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from coco_cases import random_case, reference, small_predictions, small_truth

from backbone.common.errors import UserError
from detection.evaluation import CocoMetrics, engines, evaluate_coco, load_ground_truth

ENGINES = ("hotcoco", "faster-coco-eval", "pycocotools")
BOX_KEYS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
KEYPOINT_KEYS = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]


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


def test_evaluation_needs_no_detectron2() -> None:
    code = "import sys, detection.evaluation; sys.exit('detectron2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_metrics_hold_plain_values() -> None:
    metrics: CocoMetrics = evaluate_coco(small_truth(), small_predictions())
    assert {type(value) for value in metrics.summary.values()} == {float}

"""Every engine against pycocotools itself, on random and on real annotations."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import Reference, jittered, random_case, reference

from detection.evaluation import CocoMetrics, evaluate_coco

IOU_TYPES = ("bbox", "segm", "keypoints")
EXACT = ("auto", "hotcoco", "pycocotools")
FILES = {"bbox": "instances", "segm": "instances", "keypoints": "person_keypoints"}


def same(metrics: CocoMetrics, expected: Reference) -> bool:
    curves = metrics.curves
    return (
        np.array_equal(curves.precision, expected.precision)
        and np.array_equal(curves.recall, expected.recall)
        and np.array_equal(curves.scores, expected.scores)
        and list(metrics.summary.values()) == expected.stats
    )


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    engine = request.node.callspec.params.get("engine") if hasattr(request.node, "callspec") else None
    if engine in ("hotcoco", "faster-coco-eval"):
        pytest.importorskip(engine.replace("-", "_"))


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_random_cases_are_equal_to_the_last_bit(iou_type: str, engine: str) -> None:
    for seed in range(12):
        truth, predictions = random_case(iou_type, seed, crowded=seed % 6 == 5)
        given = copy.deepcopy((truth, predictions))
        metrics = evaluate_coco(truth, predictions, iou_type, engine=engine)
        assert same(metrics, reference(truth, predictions, iou_type)), f"seed {seed}"
        assert given == (truth, predictions), "the inputs were written into"


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_one_changed_score_changes_the_curves(iou_type: str) -> None:
    truth, predictions = random_case(iou_type, 1)
    expected = reference(truth, predictions, iou_type)
    assert 0 < expected.stats[0] < 1
    predictions[len(predictions) // 2]["score"] += 0.3
    assert not same(evaluate_coco(truth, predictions, iou_type), expected)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_faster_coco_eval_agrees_but_for_the_last_bit(iou_type: str) -> None:
    pytest.importorskip("faster_coco_eval")
    for seed in range(6):
        truth, predictions = random_case(iou_type, seed, crowded=seed == 5)
        metrics = evaluate_coco(truth, predictions, iou_type, engine="faster-coco-eval")
        expected = reference(truth, predictions, iou_type)
        np.testing.assert_allclose(metrics.precision, expected.precision, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(metrics.recall, expected.recall)


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_real_annotations_are_equal_to_the_last_bit(shared_data: Path, iou_type: str, split: str, engine: str) -> None:
    file = shared_data / "coco" / "annotations" / f"{FILES[iou_type]}_{split}2017.json"
    truth: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    predictions = jittered(truth, iou_type)
    expected = reference(truth, predictions, iou_type)
    assert 0.1 < expected.stats[0] < 1
    assert same(evaluate_coco(file, predictions, iou_type, engine=engine), expected)


@pytest.mark.parametrize("engine", EXACT)
def test_predictions_with_masks_alone_serve_boxes(engine: str) -> None:
    truth, predictions = random_case("segm", 2)
    for prediction in predictions:
        prediction.pop("bbox", None)
    assert same(evaluate_coco(truth, predictions, "bbox", engine=engine), reference(truth, predictions, "bbox"))


@pytest.mark.parametrize("engine", EXACT)
def test_boxes_beside_masks_settle_what_is_small(engine: str) -> None:
    truth, predictions = random_case("segm", 3)
    for prediction in predictions:
        prediction["bbox"] = [0.0, 0.0, 200.0, 200.0]
    with_boxes = reference(truth, predictions, "segm")
    assert same(evaluate_coco(truth, predictions, "segm", engine=engine), with_boxes)
    for prediction in predictions:
        del prediction["bbox"]
    assert reference(truth, predictions, "segm").stats != with_boxes.stats


@pytest.mark.parametrize("engine", EXACT)
def test_keypoints_alone_serve_boxes(engine: str) -> None:
    truth, predictions = random_case("keypoints", 2)
    for prediction in predictions:
        prediction.pop("bbox", None)
    assert same(evaluate_coco(truth, predictions, "bbox", engine=engine), reference(truth, predictions, "bbox"))


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_crowds_alone(iou_type: str, engine: str) -> None:
    truth, predictions = random_case(iou_type, 4)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 1
    metrics = evaluate_coco(truth, predictions, iou_type, engine=engine)
    assert same(metrics, reference(truth, predictions, iou_type))
    assert set(metrics.summary.values()) == {-1.0}

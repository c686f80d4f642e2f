"""PASCAL VOC's AP against detectron2's evaluator, to the last bit, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from voc_cases import detectron2_aps, random_detections, records_of

from backbone.common.errors import DataError, UserError
from detection.data.voc import VOC_CLASSES, VocObjects, VocSplit, read_split, split_of_folder
from detection.evaluation import evaluate_voc
from detection.evaluation.voc_detections import VocDetections, load_detections, write_submission


@pytest.fixture(scope="module")
def year(shared_data) -> Path:
    return shared_data / "VOCdevkit" / "VOC2012"


@pytest.fixture(scope="module")
def objects(year) -> VocObjects:
    return read_split(split_of_folder(year, "trainval"))


@pytest.mark.parametrize("decimals", [None, 3, 1])
def test_files_give_the_bits_of_detectron2(year, objects, tmp_path, decimals):
    """With one decimal nearly all scores have equals, within images and across."""
    found = random_detections(objects, 1500, decimals=decimals)
    write_submission(found, tmp_path, objects.ids, "trainval")
    metrics = evaluate_voc(objects, tmp_path)
    for metric in ("voc07", "voc10"):
        expected = detectron2_aps(tmp_path, year, "trainval", use_07_metric=metric == "voc07")
        assert 0.05 < expected.mean() < 0.95
        np.testing.assert_array_equal(metrics.aps[metric], expected)
        assert metrics.figures(metric)["AP75"] == np.mean(list(expected[:, 5]))


def test_equal_to_detectron2s_evaluator_on_the_same_instances(year, objects, monkeypatch):
    """The whole of PascalVOCDetectionEvaluator; it rounds scores to 3 decimals and boxes to 1."""
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    name = "voc_of_this_test"
    MetadataCatalog.get(name).set(dirname=str(year), split="trainval", year=2007, thing_classes=list(VOC_CLASSES))
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    found = random_detections(objects, 600, seed=1, decimals=3)
    records = []
    for index, image_id in enumerate(objects.ids):
        rows = found.image == index
        if not rows.any():
            continue
        instances = Instances((500, 500))
        boxes = found.boxes[rows] - (1, 1, 0, 0)
        instances.pred_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
        instances.scores = torch.from_numpy(found.scores[rows])
        instances.pred_classes = torch.from_numpy(found.labels[rows])
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
        part = [np.asarray(column)[rows] for column in (found.image, found.labels, found.scores, found.boxes)]
        records += records_of(VocDetections(*part), objects.ids)
    expected = evaluator.evaluate()["bbox"]
    MetadataCatalog.remove(name)
    figures = evaluate_voc(objects, records, metric="voc07").to_json()["bbox"]
    assert expected["AP50"] > 20
    assert {key: 100 * figures[key] for key in expected} == pytest.approx(dict(expected), abs=1e-9)


def test_folder_and_records_give_the_same(year, objects, tmp_path):
    found = random_detections(objects, 800, seed=2)
    write_submission(found, tmp_path / "results" / "VOC2012" / "Main", objects.ids, "trainval")
    expected = evaluate_voc(objects, found).aps["voc10"]
    np.testing.assert_array_equal(evaluate_voc(objects, str(tmp_path)).aps["voc10"], expected)
    records = records_of(found, objects.ids)
    file = tmp_path / "dets.json"
    file.write_text(json.dumps(records))
    np.testing.assert_allclose(evaluate_voc(split_of_folder(year, "trainval"), file).aps["voc10"], expected)
    for record in records:
        record["image_id"] = int(record["image_id"].replace("_", ""))
    np.testing.assert_allclose(evaluate_voc(objects, records).aps["voc10"], expected)


def small(*, difficult: bool = False) -> VocObjects:
    """Two images: a cat in each, and a dog that may be difficult in the first."""
    split = VocSplit(Path("VOC2007"), "test")
    boxes = np.array([[1, 1, 10, 10], [21, 1, 40, 20], [1, 1, 10, 10]], dtype=np.float64)
    cat, dog = VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")
    return VocObjects(
        split=split,
        ids=["000001", "000002"],
        sizes=np.full((2, 2), 50),
        image=np.array([0, 0, 1]),
        labels=np.array([cat, dog, cat]),
        boxes=boxes,
        difficult=np.array([False, difficult, False]),
    )


def record(image: int, name: str, box: list[float], score: float) -> dict:
    return {"image_id": image, "category_id": VOC_CLASSES.index(name) + 1, "bbox": box, "score": score}


CAT = [0, 0, 10, 10]


def test_by_hand():
    found = [record(1, "cat", CAT, 0.9), record(1, "cat", CAT, 0.8), record(2, "cat", CAT, 0.7)]
    metrics = evaluate_voc(small(), found)
    assert metrics.metric == "voc07"
    # Recall 1/2 at precision 1, then 1 at 2/3.
    cat = metrics.to_json()["voc"]["per_class"]["cat"]
    assert cat["AP50_voc10"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert cat["AP50_voc07"] == pytest.approx((6 + 5 * 2 / 3) / 11)
    figures = metrics.to_json()["bbox"]
    assert figures["per_class"]["dog"] == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    assert figures["AP50"] == pytest.approx(cat["AP50_voc07"] / 2)
    # Classes without ground truth are no part of the mean, and are no zero.
    assert figures["per_class"]["cow"]["AP"] == -1


def test_difficult_objects_count_neither_way():
    dog = [20, 0, 20, 20]
    found = [record(1, "dog", dog, 0.9), record(1, "dog", dog, 0.8), record(2, "dog", dog, 0.7)]
    assert evaluate_voc(small(), found).of_classes("voc10")["dog"]["AP50"] == 1.0
    metrics = evaluate_voc(small(difficult=True), found)
    assert metrics.objects[VOC_CLASSES.index("dog")] == 0
    assert metrics.of_classes("voc10")["dog"]["AP50"] == -1
    curve = metrics.curves[VOC_CLASSES.index("dog")][0]
    assert curve.precision.tolist() == [0, 0, 0]


def test_scores_are_not_rounded():
    """With three decimals these would be equal, and the wrong one first."""
    found = [record(1, "cat", [30, 30, 5, 5], 0.50001), record(1, "cat", CAT, 0.50002), record(2, "cat", CAT, 0.50003)]
    assert evaluate_voc(small(), found).of_classes("voc10")["cat"]["AP50"] == 1.0


def test_no_detections_at_all():
    figures = evaluate_voc(small(), []).to_json()
    assert figures["bbox"]["AP"] == 0 and figures["voc"]["mAP50_voc07"] == 0
    nothing = replace(small(), **{name: getattr(small(), name)[:0] for name in ("image", "labels", "boxes")})
    nothing = replace(nothing, difficult=np.zeros(0, dtype=bool))
    assert evaluate_voc(nothing, [record(1, "cat", CAT, 0.9)]).to_json()["bbox"]["AP"] == -1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image_id": 3}, "image_id 3, which the images of the split do not have"),
        ({"category_id": 0}, "category_id 0, which PASCAL VOC's classes, counted from 1, do not have"),
        ({"category_id": 21}, "category_id 21"),
        ({"score": float("nan")}, "'score' is not finite"),
        ({"bbox": [1, 2, 3]}, "'bbox' must be a list of 4 numbers"),
    ],
)
def test_wrong_records_are_named(bad, message):
    with pytest.raises(DataError, match=message):
        evaluate_voc(small(), [{**record(1, "cat", CAT, 0.9), **bad}])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("comp4_det_test_cat", "000001 0.5 1 2 3\n", "cat.txt, line 1: '000001 0.5 1 2 3'; a line is image id score"),
        ("comp4_det_test_cat", "\n000001 0.5 1 2 3 x\n", "cat.txt, line 2"),
        ("comp4_det_test_cat", "000001 nan 1 2 3 4\n", "cat.txt, line 1"),
        ("comp4_det_test_cat", "000009 0.5 1 2 3 4\n", "1 detection on images that the split 'test' does not list"),
        ("comp4_det_test_kat", "", "'kat' is no class of PASCAL VOC; did you mean 'cat'"),
        ("comp4_det_val_cat", "", "no file comp4_det_test_<class>.txt; it holds comp4_det_val_cat.txt"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, text, message):
    (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_detections(tmp_path, small().ids, "test")


def test_classes_without_a_file_are_said(tmp_path):
    (tmp_path / "comp3_det_test_cat.txt").write_text("000001 0.5 1 1 10 10\n")
    found = load_detections(tmp_path, small().ids, "test")
    assert len(found.without_file) == 19 and "cat" not in found.without_file
    assert evaluate_voc(small(), found).of_classes("voc10")["cat"]["AP50"] == 0.5


def test_other_mistakes():
    with pytest.raises(UserError, match="unknown metric 'voc12'; did you mean 'voc10'"):
        evaluate_voc(small(), [], metric="voc12")
    without = replace(small(), split=VocSplit(Path("VOC2012"), "test", annotated=False))
    with pytest.raises(DataError, match="has no annotations.*--submission"):
        evaluate_voc(without, [])


def test_less_work_than_detectron2(year, objects, tmp_path, count_calls):
    """On the same files, from reading on, one metric at ten IoUs each."""
    from detectron2.evaluation.pascal_voc_evaluation import parse_rec

    write_submission(random_detections(objects, 1500, seed=3), tmp_path, objects.ids, "trainval")
    ours = count_calls(evaluate_voc, split_of_folder(year, "trainval"), tmp_path)
    parse_rec.cache_clear()
    theirs = count_calls(partial(detectron2_aps, use_07_metric=False), tmp_path, year, "trainval")
    assert theirs > 3 * ours

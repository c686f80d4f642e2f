"""PASCAL VOC through tools/train_net.py: fine-tuned from COCO's classes, evaluated, and written for the servers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import final_weights, train

from detection.data.voc import VOC_CLASSES, split_of_folder
from detection.evaluation import evaluate_voc
from detection.evaluation.voc_detections import PREFIXES

SMALL = {
    "TEST.PICTURES": 2,
    "TEST.LOSS": True,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 20,
}


@pytest.fixture(scope="module")
def root(shared_data, tmp_path_factory) -> Path:
    """The samples, with images of both to detect on, whose annotations are not there."""
    root = tmp_path_factory.mktemp("root")
    year = root / "VOCdevkit" / "VOC2012"
    shutil.copytree(shared_data / "VOCdevkit" / "VOC2012", year)
    names = (year / "ImageSets/Main/val.txt").read_text().split()[:4]
    (year / "ImageSets/Main/test.txt").write_text("\n".join(names))
    coco = json.loads((shared_data / "coco/annotations/instances_val2017.json").read_text())
    coco["images"] = coco["images"][:4]
    del coco["annotations"]
    (root / "coco/annotations").mkdir(parents=True)
    (root / "coco/annotations/image_info_test-dev2017.json").write_text(json.dumps(coco))
    (root / "coco/test2017").symlink_to((shared_data / "coco/val2017").resolve())
    for part in ("train2017", "annotations/instances_train2017.json"):
        (root / "coco" / part).symlink_to((shared_data / "coco" / part).resolve())
    return root


@pytest.fixture(scope="module")
def coco_run(root, tmp_path_factory) -> tuple[Path, str]:
    """A detector of COCO's classes, tested on test-dev."""
    folder = tmp_path_factory.mktemp("coco") / "tiny"
    changes = {"DATASETS.TRAIN": ("coco_2017_train",), "DATASETS.TEST": ("coco_2017_test-dev",), "SOLVER.MAX_ITER": 1}
    return folder, train(folder, "--data-root", str(root), changes={**SMALL, **changes})


@pytest.fixture(scope="module")
def voc_run(root, coco_run, tmp_path_factory) -> tuple[Path, str]:
    """Trained on VOC from that detector, tested on 12 test, which has no annotations, and on val."""
    folder = tmp_path_factory.mktemp("voc") / "tiny"
    tests = ("voc_2012_test", "voc_2012_val")
    changes = {"DATASETS.TRAIN": ("voc_2012_train",), "DATASETS.TEST": tests, "TEST.EVAL_PERIOD": 4}
    changes["TEST.BEST"] = "bbox/AP50"
    weights = str(coco_run[0] / "model_final.pth")
    return folder, train(folder, "--data-root", str(root), "--weights", weights, changes={**SMALL, **changes})


def evaluations(folder: Path) -> list[dict]:
    """Return the lines of metrics.jsonl that hold figures of voc_2012_val."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "voc_2012_val/bbox/AP" in line]


def test_the_submission_of_test_dev(coco_run):
    folder, printed = coco_run
    file = folder / "detections_test-dev2017_tiny_results.json"
    assert f"coco_2017_test-dev has no ground truth: no figures; for its evaluation server: {file}" in printed
    records = json.loads(file.read_text())
    assert records and set(records[0]) == {"image_id", "category_id", "bbox", "score"}
    assert not {"bbox", "validation"} & json.loads((folder / "results.json").read_text()).keys()
    assert not (folder / "model_best.pth").exists()


def test_heads_are_mapped_by_name(voc_run):
    folder, printed = voc_run
    assert "20 of 20 classes mapped by name from 80" in printed
    assert len(final_weights(folder)["roi_heads.box_predictor.cls_score.bias"]) == 21


def test_figures_of_voc(voc_run, root):
    folder, printed = voc_run
    assert "151 objects" in printed and "26 difficult objects left out" in printed
    results = json.loads((folder / "results.json").read_text())
    found = json.loads((folder / "predictions_voc_2012_val.json").read_text())
    assert found
    expected = evaluate_voc(split_of_folder(root / "VOCdevkit" / "VOC2012", "val"), found).to_json()
    for kind in ("bbox", "voc"):
        assert results[f"voc_2012_val/{kind}"] == expected[kind]
        assert set(expected[kind]["per_class"]) == set(VOC_CLASSES)
    assert "mAP50_voc07" in expected["voc"] and "AP75" in expected["bbox"]
    assert "mAP50" in (folder / "results.md").read_text()
    # The first test set has no figures and no loss; the best weights are chosen by the other.
    assert {name for name in results if name.endswith("validation")} == {"voc_2012_val/validation"}
    assert (folder / "model_best.pth").exists()
    assert results["best"]["AP50"] == max(line["voc_2012_val/bbox/AP50"] for line in evaluations(folder))


def test_the_submission_of_voc(voc_run):
    folder, printed = voc_run
    target = folder / "results" / "VOC2012" / "Main"
    assert f"voc_2012_test has no ground truth: no figures; for its evaluation server: {target}" in printed
    files = sorted(target.iterdir())
    assert [file.name for file in files] == [f"{PREFIXES[0]}test_{name}.txt" for name in VOC_CLASSES]
    lines = [line.split() for file in files for line in file.read_text().splitlines()]
    assert len(lines) == len(json.loads((folder / "predictions_voc_2012_test.json").read_text())) > 0
    assert all(len(line) == 6 and line[0].startswith("200") for line in lines)


def test_a_set_without_ground_truth_waits_for_the_end(voc_run):
    folder, _ = voc_run
    assert [line["iteration"] for line in evaluations(folder)] == [4, 6]
    # Once, at the end.
    assert (folder / "log.txt").read_text().count("voc_2012_test has no ground truth") == 1


def test_evaluation_alone_gives_the_same(voc_run, root, tmp_path):
    folder, _ = voc_run
    changes = {**SMALL, "DATASETS.TEST": ("voc_2012_val",)}
    weights = str(folder / "model_final.pth")
    train(tmp_path, "--eval-only", "--data-root", str(root), "--weights", weights, changes=changes)
    results = json.loads((tmp_path / "results.json").read_text())
    trained = json.loads((folder / "results.json").read_text())
    assert results["bbox"] == trained["voc_2012_val/bbox"] and results["voc"] == trained["voc_2012_val/voc"]

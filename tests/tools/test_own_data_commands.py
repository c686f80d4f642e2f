"""The commands on data sets of one's own in any form."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "detection" / "data"))
import own_forms
from own_forms import CLASSES, put


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [value for line in lines if (value := json.loads(line).get("total_loss")) is not None]


def test_two_forms_of_a_set_train_to_the_same_bits(train, tmp_path):
    seen = []
    for form in ("roboflow_yolo", "cvat_voc"):
        path = own_forms.WRITERS[form](tmp_path / form)
        run = tmp_path / f"run_{form}"
        done = train(*("--train", path, "--output-dir", run), changes={"SOLVER.MAX_ITER": 2, "SOLVER.LOG_PERIOD": 1})
        assert done.status == 0, done.err
        seen.append(losses(run))
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]


def test_a_split_is_written_and_kept(train, tmp_path):
    path = own_forms.roboflow_yolo(tmp_path / "data")
    done = train("--train", path, "--split", "0.34")
    assert done.status == 0, done.err
    assert "custom_train (YOLO txt): 2 images" in done.out and "custom_val (YOLO txt): 1 image" in done.out
    record = json.loads((tmp_path / "run/split.json").read_text())
    assert len(record["val"]) == 1 and sorted(record["train"] + record["val"]) == ["a.jpg", "b.jpg", "c.jpg"]
    other = next(name for name in record["train"] if name != record["val"][0])
    record["train"], record["val"] = [n for n in ["a.jpg", "b.jpg", "c.jpg"] if n != other], [other]
    put(tmp_path / "run/split.json", record)
    done = train("--train", path, "--split", "0.34", "--resume", "--force", changes={"SOLVER.MAX_ITER": 2})
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run/split.json").read_text())["val"] == [other]


def test_an_evaluation_takes_the_classes_of_its_weights(train, tmp_path):
    path = own_forms.roboflow_voc(tmp_path / "data")
    assert train("--train", path).status == 0
    other = tmp_path / "other"
    own_forms.write_images(other)
    for name in ("a", "b", "c"):
        put(other / f"{name}.xml", own_forms.xml("b.jpg"))
    done = train("--eval-only", "--weights", tmp_path / "run/model_final.pth", "--val", other, "--overwrite")
    assert done.status == 0, done.err
    assert "custom_val (PASCAL VOC XML): 3 images (3 with objects), 6 objects, 0 crowd regions, 2 classes" in done.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--train", "a", "--train-json", "b"), "exclude each other"),
        (("--split", ".1"), "--split holds out a share of --train"),
        (("--train", "a", "--val", "b", "--split", ".1"), "--split holds out a share of --train"),
        (("--train", "a", "--split", "10"), "is no share of the images"),
        (("--train", "no/such"), "no/such does not exist"),
        (("--train", "{}"), "looked for COCO or LVIS JSON"),
    ],
)
def test_flags_of_own_data_that_do_not_fit(train, tmp_path, flags, said):
    train(*(flag.format(tmp_path) for flag in flags)).mistake(said)


def test_check_data_reads_every_form(tool, tmp_path):
    for form in ("roboflow_yolo", "cvat_voc", "cvat_coco", "roboflow_csv"):
        path = own_forms.WRITERS[form](tmp_path / form)
        done = tool("check_data.py", "--train", path)
        assert done.status == 0, done.err
        assert "3 images, 4 annotations" in done.out and "fit for use" in done.out
    put(tmp_path / "roboflow_yolo/train/labels/a.txt", "7 .5 .5 .1 .1")
    tool("check_data.py", "--train", tmp_path / "roboflow_yolo").mistake("class 7, but")
    tool("check_data.py", "--train", path, "--val", path, "--fix", "a.json").mistake("are for one set")
    tool("check_data.py", "--val-images", path).mistake("--val-images belongs to --val")


def test_evaluate_takes_truth_of_every_form(tool, tmp_path):
    perfect = [
        {"image_id": image, "category_id": 1 + CLASSES.index(what), "bbox": [x0, y0, x1 - x0, y1 - y0], "score": 0.9}
        for image, name in enumerate(own_forms.OBJECTS, 1)
        for what, (x0, y0, x1, y1) in own_forms.OBJECTS[name]
    ]
    put(tmp_path / "found.json", perfect)
    for form in ("label_studio_yolo", "cvat_voc"):
        path = own_forms.WRITERS[form](tmp_path / form)
        flags = ("--gt", path, "--predictions", tmp_path / "found.json", "--json", tmp_path / "figures.json")
        assert tool("evaluate.py", *flags).status == 0
        assert json.loads((tmp_path / "figures.json").read_text())["bbox"]["AP"] == pytest.approx(1)


def test_evaluate_takes_the_order_of_the_classes(tool, tmp_path):
    own_forms.write_images(tmp_path / "data")
    put(tmp_path / "data/b.xml", own_forms.xml("b.jpg"))  # of two classes, it has the second
    boxes = [box for _, box in own_forms.OBJECTS["b.jpg"]]
    found = [
        {"image_id": 1, "category_id": 2, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": 0.9} for x0, y0, x1, y1 in boxes
    ]
    flags = ("--gt", tmp_path / "data", "--predictions", put(tmp_path / "found.json", found))
    tool("evaluate.py", *flags).mistake("category_id")
    done = tool("evaluate.py", *flags, "--classes", "cat, dog", "--json", tmp_path / "figures.json")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "figures.json").read_text())["bbox"]["AP"] == pytest.approx(1)


def test_a_plan_says_time_and_memory_and_writes_nothing(train, tmp_path):
    path = own_forms.roboflow_yolo(tmp_path / "data")
    keys = {"SOLVER.MAX_ITER": 1000, "INPUT.AUTO_SIZE": True, "SOLVER.AUTO_BATCH": True}
    done = train("--train", path, "--plan", changes=keys)
    assert done.status == 0, done.err
    assert "  expected   " in done.out and "for 1,000 steps of" in done.out and "GiB of memory at the peak" in done.out
    assert "shows each of 2 images 1,000 times" in done.out
    assert "finetune_faster_rcnn_r50_fpn.yaml is for small sets" in done.out
    assert not (tmp_path / "run").exists()

"""The command line of tools/reproduce.py on detection tables: real runs of small rows on the samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

TINY = {
    "MODEL.BACKBONE.NAME": "resnet18",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.MAX_ITER": 2,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.REFERENCE_BATCH_SIZE": 1,
    "MODEL.BACKBONE.CALIBRATION_IMAGES": 2,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 10,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 5,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.PICTURES": 0,
}
IMAGES = 4


@pytest.fixture
def call(tool, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(*arguments, changes):
        pairs = [part for pair in {**TINY, **changes}.items() for part in pair]
        return tool("reproduce.py", *arguments, "--device", "cpu", *pairs)

    return call


@pytest.fixture
def coco_root(shared_data, tmp_path) -> Path:
    """A data root with the first images of the COCO samples."""
    root = tmp_path / "data"
    (root / "coco" / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        name = f"coco/annotations/instances_{split}.json"
        data = json.loads((shared_data / name).read_text(encoding="utf-8"))
        data["images"] = data["images"][:IMAGES]
        kept = {image["id"] for image in data["images"]}
        data["annotations"] = [one for one in data["annotations"] if one["image_id"] in kept]
        (root / name).write_text(json.dumps(data), encoding="utf-8")
        (root / "coco" / split).symlink_to(shared_data / "coco" / split)
    return root


@pytest.fixture
def voc_root(shared_data, tmp_path) -> Path:
    """A data root with some images of the VOC 2012 samples, a test split among them, and without VOC 2007."""
    source, root = shared_data / "VOCdevkit" / "VOC2012", tmp_path / "data" / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).symlink_to(source / folder)
    ids = (source / "ImageSets" / "Main" / "val.txt").read_text().split()[:IMAGES]
    for split in ("train", "test"):
        (lists / f"{split}.txt").write_text("\n".join(ids) + "\n")
    return root.parents[1]


@pytest.mark.slow
def test_one_training_and_a_test_with_methods(call, coco_root, tmp_path):
    sets = {"DATASETS.TRAIN": "('coco_2017_train',)", "DATASETS.TEST": "('coco_2017_val',)"}
    asked = ("--table", "9", "--rows", "baseline", "--rows", "+ box refinement", "--data-root", coco_root)
    asked = (*asked, "--json", "figures.json")
    said = call(*asked, changes=sets).fine("iter 2/2", "with box refinement, box voting", "table9.html")
    assert said.count("iter 2/2") == 1
    rows = {row["row"]: row for row in json.loads((tmp_path / "figures.json").read_text())["rows"]}
    runs = tmp_path / "output" / "reproduce" / "runs"
    for name, folder in (("baseline, val", "coco_paper_r101"), ("+ box refinement, val", "coco_paper_r101_refinement")):
        results = json.loads((runs / folder / "results.json").read_text())
        assert rows[name]["state"] == "done"
        assert rows[name]["figures"]["AP %"]["measured"] == pytest.approx(100 * results["bbox"]["AP"], abs=1e-3)
    page = (tmp_path / "output" / "reproduce" / "table9.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= 2 and "coco_2017_val, IoU .5" in page
    # What was killed between training and test goes on with the test.
    shutil.rmtree(runs / "coco_paper_r101_refinement")
    again = call(*asked, changes=sets).fine("trained already", "with box refinement, box voting")
    assert "iter 2/2" not in again


def test_the_row_without_its_data_is_named_and_the_other_goes_on(call, voc_root, tmp_path):
    asked = ("--table", "7", "--rows", "ResNet-101", "--data-root", voc_root, "--json", "figures.json")
    done = call(*asked, changes={"DATASETS.TRAIN": "('voc_2012_train',)"})
    assert done.status == 1
    assert "failed       ResNet-101, 07 test: voc_2007_test: " in done.out
    rows = {row["row"]: row for row in json.loads((tmp_path / "figures.json").read_text())["rows"]}
    assert "VOC2007" in rows["ResNet-101, 07 test"]["failure"]
    assert rows["ResNet-101, 12 test"]["state"] == "for the evaluation server"
    folder = tmp_path / "output" / "reproduce"
    assert len(list((folder / "runs/voc_paper_r101_12/results/VOC2012/Main").glob("comp4_det_test_*.txt"))) == 20
    assert "0.0025 % schedule" in (folder / "table7.md").read_text()


def test_weights_must_name_their_network(call):
    call("--table", "7", "--weights", "resnet101.pth", changes={}).mistake("must be NETWORK=FILE")

"""tools/check_data.py on sets with label images: all faults in one report."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import warm_commands
from PIL import Image
from small_segmentation import CLASSES, ROOT, scene, write_folders, write_voc

from backbone.common.errors import DataError
from backbone.segmentation.checking import check_labels
from backbone.segmentation.data.labels import write_label
from backbone.segmentation.label_command import data_of


def look(path, part="train", *keys, **more):
    return check_labels(path, part, None, data_of(list(keys)), **more)


def test_pixels_of_each_class_are_counted(tmp_path):
    root = write_folders(tmp_path)
    report = look(root)
    labels = [scene(index)[1] for index in range(4)]
    record = report.to_json()
    for label, name in enumerate(CLASSES):
        counts = [sum(value == label for value in one.ravel().tolist()) for one in labels]
        shown = {"name": name, "label": label, "pixels": sum(counts), "images": sum(map(bool, counts))}
        assert record["classes"][label] == shown
    assert record["void"] == sum(int((one == 255).sum()) for one in labels)
    assert report.fine and report.errors == [] and report.notices == []
    text = "\n".join(report.lines())
    assert "(label images): 4 images, 3 classes" in text and text.endswith("verdict: no errors")


def test_every_fault_is_listed(tmp_path):
    root = write_folders(tmp_path, {"train": 7, "val": 1})
    images, labels = root / "images" / "train", root / "labels" / "train"
    wrong = scene(0)[1]
    wrong[3, 5] = 9
    write_label(labels / "0.png", wrong)
    write_label(labels / "1.png", np.zeros((5, 6), np.uint8))
    (labels / "2.png").unlink()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(labels / "3.png")
    content = (images / "4.png").read_bytes()
    (images / "4.png").write_bytes(content[: len(content) // 2])
    write_label(labels / "5.png", np.full((60, 72), 255, np.uint8))
    write_label(labels / "stray.png", np.zeros((4, 4), np.uint8))
    report = look(root)
    said = "\n".join(report.errors)
    for words in (
        "0.png: label 9 at x 5, y 3",
        "1.png says 6x5",
        "2.png does not exist",
        "3.png: the label image has 3",
    ):
        assert words in said, said
    assert len(report.errors) == 5 and "4.png" in report.errors[-1] and not report.fine
    assert [line.rpartition("/")[2] for line in report.notices] == ["5.png", "stray.png"]
    # With the right numbers, what was wrong is not.
    report = look(root, "train", "DATA.VOID_LABELS", "9")
    assert len(report.errors) == 4


def test_a_class_without_a_pixel_and_labels_of_nothing(tmp_path):
    root = write_folders(tmp_path)
    (root / "classes.txt").write_text("\n".join([*CLASSES, "star"]))
    assert "no pixel of star (1 of 4 classes)" in look(root).notices[0]
    for file in (root / "labels" / "train").iterdir():
        with Image.open(file) as image:
            size = image.size
        write_label(file, np.full(size[::-1], 255, np.uint8))
    assert "all labels are void" in look(root).errors[0]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no set for segmentation in a known form"):
        look(tmp_path / "nothing")


def test_trees_of_other_forms(tmp_path, shared_data):
    folder = write_voc(tmp_path) / "VOCdevkit" / "VOC2012"
    assert len(look(folder, "val").images) == 3
    file = shared_data / "coco" / "annotations" / "instances_val2017.json"
    report = look(file, "val", decode=False)
    assert report.fine and len(report.images) == 50


def test_the_command(tmp_path):
    root = write_folders(tmp_path / "set")

    def call(*flags):
        return warm_commands.run([sys.executable, str(ROOT / "tools" / "check_data.py"), *map(str, flags)])

    done = call("--train", root, "--val", root)
    assert done.returncode == 0 and done.stdout.count("verdict: no errors") == 2, done.stderr
    done = call("--train", root / "labels" / "train")
    assert done.returncode == 0 and "train: 4 images, 3 classes" in done.stdout, done.stderr
    (root / "labels" / "val" / "1.png").unlink()
    done = call("--val", root, "--report", tmp_path / "r.json")
    assert done.returncode == 2 and "1.png does not exist" in done.stdout and "Traceback" not in done.stderr
    assert len(json.loads((tmp_path / "r.json").read_text())["errors"]) == 1
    for flags, message in (
        (("--val", root, "--fix", tmp_path / "f.json"), "this is a set of label images, mend its files"),
        (("--val", root, "SOLVER.MAX_ITER", "3"), "SOLVER.MAX_ITER: says nothing of label images"),
        (("--val", root, "DATA.ID_MAP", "0: 7"), "DATA.ID_MAP: 7 is none of the 3 classes"),
        (("--dataset", "voc_2012_val", "--data-root", root, "DATA.ID_MAP", "0: 7"), "DATA.ID_MAP goes with --train"),
    ):
        done = call(*flags)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr

"""ImageNet DET through tools/train_net.py: train and val1, figures on val2, and the file for the test server."""

from __future__ import annotations

import json

from ilsvrc_sample import write_det
from runs import keys

from detection.data.catalog import locate
from detection.data.voc import read_split
from detection.evaluation import evaluate_voc

SMALL = {"TEST.PICTURES": 2, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "TEST.DETECTIONS_PER_IMAGE": 20}


def test_a_run_from_the_archives_to_the_servers_file(tool, shared_data, tmp_path):
    images = sorted((shared_data / "imagenet_sample" / "images").glob("*/*.JPEG"))
    write_det(tmp_path, images)
    sets = {
        "DATASETS.TRAIN": ("imagenet_det_train", "imagenet_det_val1"),
        "DATASETS.TEST": ("imagenet_det_val2", "imagenet_det_test"),
        "SOLVER.MAX_ITER": 2,
    }
    folder = tmp_path / "run"
    flags = ("--config", "mini_faster_rcnn_r18.yaml", "--data-root", tmp_path, "--device", "cpu")
    printed = tool("train_net.py", *flags, "--output-dir", folder, *keys({**SMALL, **sets})).fine("200 classes")
    assert "imagenet_det_train + imagenet_det_val1" in printed
    results = json.loads((folder / "results.json").read_text())
    found = json.loads((folder / "predictions_imagenet_det_val2.json").read_text())
    split = locate("imagenet_det_val2", tmp_path).voc
    assert found and results["imagenet_det_val2/bbox"] == evaluate_voc(read_split(split), found).to_json()["bbox"]
    assert results["imagenet_det_val2/voc"]["metric"] == "voc10"
    lines = (folder / "detections_imagenet_det_test.txt").read_text().splitlines()
    records = json.loads((folder / "predictions_imagenet_det_test.json").read_text())
    assert len(lines) == len(records) > 0
    for line, record in zip(lines, records):
        image, label, score, *box = (float(word) for word in line.split())
        x, y, width, height = record["bbox"]
        assert f"ILSVRC2017_test_{int(image):08d}" == record["image_id"] and label == record["category_id"]
        assert (score, box[0], box[1]) == (record["score"], x, y)
        assert abs(box[2] - (x + width - 1)) + abs(box[3] - (y + height - 1)) < 1e-6

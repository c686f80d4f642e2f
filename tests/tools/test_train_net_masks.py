"""Mask R-CNN, C4 and FPN, through tools/train_net.py on real COCO images: boxes and masks, trained and evaluated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from paper_data import write_coco_sets
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SMALL = {
    "SOLVER.MAX_ITER": 2,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.REFERENCE_BATCH_SIZE": 1,
    "SOLVER.LOG_PERIOD": 1,
    "MODEL.BACKBONE.CALIBRATION_IMAGES": 1,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 10,
    "TEST.PICTURES": 1,
    "DATASETS.TEST": ("coco_2017_val",),
}
RESNET18 = {"MODEL.BACKBONE.NAME": "resnet18"}
RESNET18_FPN = {"MODEL.BACKBONE.NAME": "resnet18_fpn", "MODEL.ROI_MASK_HEAD.CONV_DIM": 8}


@pytest.mark.parametrize(
    ("config", "network"),
    [
        ("coco_mask_rcnn_r50.yaml", RESNET18),
        ("coco_mask_rcnn_r50_fpn.yaml", RESNET18_FPN),
        *(
            pytest.param(f"coco_mask_rcnn_{name}.yaml", {}, marks=pytest.mark.slow)
            for name in ("r50", "r101", "r50_fpn", "r101_fpn")
        ),
    ],
)
def test_boxes_and_masks(train, shared_data, tmp_path, config, network):
    root = write_coco_sets(shared_data / "coco", tmp_path / "data" / "coco", year=2017, images=6).parent
    done = train("--data-root", root, config=config, changes={**SMALL, **network})
    assert done.status == 0, done.err
    assert "Mask R-CNN" in done.out and "coco_2017_val, segm" in done.out
    assert re.search(r"evaluated    coco_2017_val: bbox AP \S+, AP50 \S+; segm AP \S+, AP50 \S+; took", done.out)
    run = tmp_path / "run"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["loss_mask"] > 0 for step in steps if "loss_mask" in step] == [True, True]
    results = json.loads((run / "results.json").read_text())
    predictions = json.loads((run / "predictions_coco_2017_val.json").read_text())
    assert predictions and all({"bbox", "segmentation"} <= set(record) for record in predictions)
    for kind in ("bbox", "segm"):
        measured = [results[kind][name] for name in ("AP", "AP50", "AP75")]
        assert measured == pytest.approx(by_pycocotools(root, predictions, kind), abs=1e-9)
    assert (run / "detections.jpg").stat().st_size > 0


def by_pycocotools(root: Path, predictions: list[dict], kind: str) -> list[float]:
    """Return AP, AP50 and AP75; a mask's area counts, not that of its box."""
    if kind == "segm":
        predictions = [{key: value for key, value in record.items() if key != "bbox"} for record in predictions]
    truth = COCO(str(root / "coco" / "annotations" / "instances_val2017.json"))
    evaluation = COCOeval(truth, truth.loadRes(predictions), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:3].tolist()

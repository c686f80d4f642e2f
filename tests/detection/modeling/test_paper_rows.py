"""Tables 7 to 12 of the paper: every row is a config, with the paper's figure, and does what the row says."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.structures import Boxes, Instances
from peers import config, detector_configs

from backbone.engine.config import CONFIG_FOLDER, differences, get, to_plain

# He et al., Tables 7-12: (table, row, data, metric) -> %.
VOC_07, VOC_12, COCO, DEV = "voc 07 test", "voc 12 test", "coco val", "coco test-dev"
VAL2, DET_TEST = "imagenet det val2", "imagenet det test"
FIGURES = {
    ("7", "VGG-16", VOC_07, "AP50"): 73.2,
    ("7", "VGG-16", VOC_12, "AP50"): 70.4,
    ("7", "ResNet-101", VOC_07, "AP50"): 76.4,
    ("7", "ResNet-101", VOC_12, "AP50"): 73.8,
    ("8", "VGG-16", COCO, "AP50"): 41.5,
    ("8", "VGG-16", COCO, "AP"): 21.2,
    ("8", "ResNet-101", COCO, "AP50"): 48.4,
    ("8", "ResNet-101", COCO, "AP"): 27.2,
    ("9", "baseline", COCO, "AP50"): 48.4,
    ("9", "baseline", COCO, "AP"): 27.2,
    ("9", "+ box refinement", COCO, "AP50"): 49.9,
    ("9", "+ box refinement", COCO, "AP"): 29.9,
    ("9", "+ context", COCO, "AP50"): 51.1,
    ("9", "+ context", COCO, "AP"): 30.0,
    ("9", "+ context", DEV, "AP50"): 53.3,
    ("9", "+ context", DEV, "AP"): 32.2,
    ("9", "+ multi-scale testing", COCO, "AP50"): 53.8,
    ("9", "+ multi-scale testing", COCO, "AP"): 32.5,
    ("9", "+ multi-scale testing", DEV, "AP50"): 55.7,
    ("9", "+ multi-scale testing", DEV, "AP"): 34.9,
    ("9", "ensemble", DEV, "AP50"): 59.0,
    ("9", "ensemble", DEV, "AP"): 37.4,
    ("10", "baseline VGG-16", VOC_07, "AP50"): 73.2,
    ("10", "baseline ResNet-101", VOC_07, "AP50"): 76.4,
    ("10", "baseline+++ ResNet-101", VOC_07, "AP50"): 85.6,
    ("11", "baseline VGG-16", VOC_12, "AP50"): 70.4,
    ("11", "baseline ResNet-101", VOC_12, "AP50"): 73.8,
    ("11", "baseline+++ ResNet-101", VOC_12, "AP50"): 83.8,
    ("12", "single model", VAL2, "AP50"): 60.5,
    ("12", "single model", DET_TEST, "AP50"): 58.8,
    ("12", "ensemble", VAL2, "AP50"): 63.6,
    ("12", "ensemble", DET_TEST, "AP50"): 62.1,
}
# The sets that the paper trained on, by the data of the row.
TRAINED_ON = {
    VOC_07: ("voc_2007_trainval", "voc_2012_trainval"),
    VOC_12: ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval"),
    COCO: ("coco_2014_train",),
    DEV: ("coco_2014_train", "coco_2014_val"),
    VAL2: ("imagenet_det_train", "imagenet_det_val1"),
    DET_TEST: ("imagenet_det_train", "imagenet_det_val1"),
}
TESTED_ON = {
    VOC_07: "voc_2007_test",
    VOC_12: "voc_2012_test",
    COCO: "coco_2014_val",
    DEV: "coco_2015_test-dev",
    # The config is of val2; the test set, without annotations, is tested beside.
    VAL2: "imagenet_det_val2",
    DET_TEST: "imagenet_det_val2",
}
# Methods of Appendix B, in the order in which Table 9 adds them.
STEPS = {
    "+ box refinement": ("TEST.BOX_REFINEMENT.ENABLED", "TEST.BOX_VOTING.ENABLED"),
    "+ context": ("MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT",),
    "+ multi-scale testing": ("TEST.MULTI_SCALE.ENABLED",),
    "ensemble": ("TEST.ENSEMBLE",),
}
KINDS = ("coco_paper", "voc_paper", "imagenet_det")
NAMES = sorted(path.name for kind in KINDS for path in CONFIG_FOLDER.glob(f"{kind}_*.yaml"))


def rows_of(name: str) -> dict[tuple[str, ...], float]:
    return {tuple(row[:4]): row[4] for row in config(name).PAPER.ROWS}


def methods_of_row(row: str) -> set[str]:
    """Return the keys that are on in a row: each row of Table 9 keeps what the rows above it added."""
    names = list(STEPS)
    last = names.index("+ multi-scale testing") if row.startswith(("baseline+++", "single model")) else -1
    last = names.index(row) if row in names else last
    return {key for name in names[: last + 1] for key in STEPS[name]}


def test_every_row_is_one_config():
    found = [(row, figure) for name in NAMES for row, figure in rows_of(name).items()]
    assert len(found) == len(FIGURES)
    assert dict(found) == FIGURES


def test_no_other_config_claims_a_row():
    others = set(detector_configs()) - set(NAMES)
    assert others
    assert all(not config(name).PAPER.ROWS for name in others)


@pytest.mark.parametrize("name", NAMES)
def test_config_does_what_its_rows_say(name):
    settings = config(name)
    for _, row, data, _ in rows_of(name):
        expected = (TRAINED_ON[data], (TESTED_ON[data],), "vgg16" if "VGG-16" in row else "resnet101")
        assert expected == (settings.DATASETS.TRAIN, settings.DATASETS.TEST, settings.MODEL.BACKBONE.NAME)
        on = {key for keys in STEPS.values() for key in keys if get(settings, key)}
        assert on == methods_of_row(row)
    assert settings.MODEL.RPN.POST_NMS_TOPK_TEST == 300
    assert settings.MODEL.ROI_BOX_HEAD.POOLER_TYPE == "ROIPool"
    assert settings.TEST.BOX_REFINEMENT.NMS == settings.MODEL.ROI_HEADS.NMS_THRESH_TEST == 0.3
    assert settings.TEST.BOX_VOTING.IOU == 0.5
    assert settings.TEST.MULTI_SCALE.SIDES == (200, 400, 600, 800, 1000)
    assert settings.INPUT.MIN_SIZE_TEST == 600
    assert len(settings.TEST.ENSEMBLE) == (2 if "ensemble" in name else 0)
    # Nothing to measure on the way where the annotations stay with the evaluation server.
    assert (settings.TEST.EVAL_PERIOD == 0) == ("test-dev" in settings.DATASETS.TEST[0] or "_12" in name)


@pytest.mark.parametrize("name", NAMES)
def test_text_of_the_config_cites_table_and_figures(name):
    text = " ".join(line[2:] for line in (CONFIG_FOLDER / name).read_text().splitlines() if line.startswith("#"))
    for (table, _, _, _), figure in rows_of(name).items():
        assert f"Table {table}" in text
        assert str(figure) in text


def test_the_voc_schedule_is_faster_rcnns():
    settings = config("voc_paper_r101_07.yaml")
    solver = settings.SOLVER
    assert (solver.BASE_LR, solver.STEPS, solver.MAX_ITER, solver.GAMMA) == (1e-3, (60_000,), 80_000, 0.1)
    assert (solver.MOMENTUM, solver.WEIGHT_DECAY) == (0.9, 5e-4)
    assert settings.MODEL.ANCHOR_GENERATOR.SIZES == [[128, 256, 512]]
    assert settings.MODEL.RPN.BATCH_SIZE_PER_IMAGE == 256
    assert (settings.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, settings.MODEL.ROI_HEADS.POSITIVE_FRACTION) == (128, 0.25)


@pytest.mark.parametrize(
    ("name", "stage", "channels"), [("voc_paper_r101_07.yaml", "res4", 1024), ("coco_paper_vgg16.yaml", "conv5", 512)]
)
def test_the_rpn_is_that_of_faster_rcnn(name, stage, channels):
    settings = config(name)
    rpn = build_proposal_generator(settings, {stage: ShapeSpec(channels=channels, stride=16)})
    assert rpn.rpn_head.conv.out_channels == 512 and rpn.rpn_head.conv.in_channels == channels
    assert rpn.min_box_size == 16
    height, width = 600, 800
    anchors = rpn.anchor_generator([torch.zeros(1, channels, 38, 50)])
    truth = Instances((height, width), gt_boxes=Boxes(torch.tensor([[0.0, 0, 300, 300], [390, 290, 520, 420]])))
    labels, _ = rpn.label_and_sample_anchors(anchors, [truth])
    boxes = anchors[0].tensor
    sampled = boxes[labels[0] >= 0]
    assert len(sampled) == 256
    assert all(x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height for x0, y0, x1, y1 in sampled.tolist())
    assert any(box[0] < 0 for box in boxes.tolist())


def test_vgg_and_resnet_differ_in_the_network_alone():
    for kind in ("coco_paper_{}.yaml", "voc_paper_{}_07.yaml", "voc_paper_{}_12.yaml"):
        pair = [to_plain(config(kind.format(network))) for network in ("vgg16", "r101")]
        changed = {key for key in differences(*pair) if not key.startswith("MODEL.RESNETS.")}
        assert changed == {
            *("MODEL.BACKBONE.NAME", "MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"),
            *("MODEL.RPN.IN_FEATURES", "MODEL.ROI_HEADS.IN_FEATURES", "PAPER.ROWS"),
        }

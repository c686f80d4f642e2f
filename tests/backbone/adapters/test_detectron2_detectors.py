"""Our networks in detectors that detectron2 builds from its own, stock config."""

from __future__ import annotations

import pytest
import torch
from adapter_checks import check_training_step
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from randomize import randomize

import detection
from backbone import ArchitectureError, adapters


@pytest.fixture(autouse=True)
def registered():
    detection.register()
    torch.manual_seed(0)


@pytest.fixture
def inputs() -> list[dict]:
    image = torch.randint(0, 256, (3, 90, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    boxes = Boxes(torch.tensor([[10.0, 20.0, 60.0, 80.0], [50.0, 10.0, 110.0, 60.0]]))
    return [{"image": image, "instances": Instances((90, 128), gt_boxes=boxes, gt_classes=torch.tensor([1, 2]))}]


def config_of(name: str, stages: list[str]) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = stages
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    return cfg


def faster_rcnn() -> CfgNode:
    cfg = config_of("resnet18_fpn", ["res2", "res3", "res4", "res5"])
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 4
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 64
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    return cfg


def retinanet() -> CfgNode:
    cfg = config_of("resnet18_fpn_p6p7", ["res3", "res4", "res5"])
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.RETINANET.NUM_CLASSES = 4
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    return cfg


@pytest.mark.parametrize("config", [faster_rcnn, retinanet])
def test_detector_trains_and_detects(config, inputs):
    model = build_model(config())
    randomize(adapters.network_of(model))
    with EventStorage():
        check_training_step(model, lambda: sum(model(inputs).values()))
    with torch.no_grad():
        found = model.eval()(inputs)
    assert found[0]["instances"].image_size == (90, 128)


def test_weights_are_not_loaded_past_the_config(tmp_path):
    model = build_model(retinanet())
    with pytest.raises(ArchitectureError, match="PIXEL_MEAN"):
        adapters.load_weights_into(model, tmp_path / "weights.pth")

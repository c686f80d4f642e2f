"""A training that begins with a detector of torchvision."""

from __future__ import annotations

import runs
import torch
import warm_commands
import yaml
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

import detection
from detection.inference.detector import load_trained_detector

KEYS = {key: value for key, value in runs.TINY.items() if not key.startswith("MODEL.")}
KEYS |= {"SOLVER.MAX_ITER": 2, "SOLVER.BASE_LR": 1e-4}


def test_own_classes_on_a_detector_of_torchvision(tmp_path):
    parts = {"box_head": TwoMLPHead(256 * 49, 8), "box_predictor": FastRCNNPredictor(8, 91)}
    model = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), **parts)
    torch.save(model.state_dict(), tmp_path / "tv.pth")
    pairs = [text for key, value in KEYS.items() for text in (key, str(value))]
    command = runs.command(tmp_path / "run", "--weights", str(tmp_path / "tv.pth"))
    done = warm_commands.run([*command, *pairs], merged=True)
    assert done.returncode == 0, done.stdout[-3000:]
    for said in (
        "91 rows of classes: COCO's 80 are taken, 10 that are none are left out",
        "MODEL.ANCHOR_GENERATOR.NAME DefaultAnchorGenerator -> TorchvisionAnchorGenerator",
        "frozen norms have an epsilon of 0",
        "of 8 classes mapped by name from 80, initialised anew: ",
        "(rows of roi_heads.box_predictor.cls_score, roi_heads.box_predictor.bbox_pred)",
    ):
        assert said in done.stdout
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["INPUT"]["FLOAT_RESIZE"] and saved["MODEL"]["BACKBONE"]["NORM_EPS"] == 0
    detection.register()
    detector = load_trained_detector(tmp_path / "run" / "model_final.pth", "cpu")
    assert type(detector.model.proposal_generator.anchor_generator).__name__ == "TorchvisionAnchorGenerator"

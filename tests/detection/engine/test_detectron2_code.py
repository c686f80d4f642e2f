"""Code written for detectron2 keeps working: networks and heads of its registries, its trainer, its data catalog."""

from __future__ import annotations

import json

import pytest
import torch
from runs import keys
from torch import nn

import detection
from backbone import ConfigError, WeightsError
from backbone.common.mini_set import mini_set_root

detection.register()

from detectron2.config import LazyCall, get_cfg, instantiate  # noqa: E402
from detectron2.engine import DefaultTrainer  # noqa: E402
from detectron2.evaluation import COCOEvaluator  # noqa: E402
from detectron2.layers import ShapeSpec  # noqa: E402
from detectron2.modeling import BACKBONE_REGISTRY, ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY, Backbone  # noqa: E402
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, StandardROIHeads  # noqa: E402

CONFIG = "mini_faster_rcnn_r18.yaml"
QUICK = keys({"SOLVER.MAX_ITER": 1, "DATALOADER.NUM_WORKERS": 0, "TEST.PICTURES": 0, "SOLVER.CHECKPOINT_PERIOD": 0})


class OwnNet(Backbone):
    """Two convolutions; one map of stride 16."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.first = nn.Conv2d(input_shape.channels, cfg.MODEL.get("OWN_WIDTH", 8), 7, stride=4, padding=3)
        self.second = nn.Conv2d(self.first.out_channels, 12, 7, stride=4, padding=3)

    def forward(self, images):
        return {"own": self.second(self.first(images).relu()).relu()}

    def output_shape(self):
        return {"own": ShapeSpec(channels=12, stride=16)}


class OwnHeads(StandardROIHeads):
    used = 0

    def forward(self, *arguments, **keywords):
        type(self).used += 1
        return super().forward(*arguments, **keywords)


class OwnBoxHead(FastRCNNConvFCHead):
    pass


OWN = ("MODEL.BACKBONE.NAME", "OwnNet", "MODEL.ROI_HEADS.NAME", "OwnHeads", "MODEL.ROI_BOX_HEAD.NAME", "OwnBoxHead")
ON_OWN = (
    *("MODEL.RPN.IN_FEATURES", ["own"], "MODEL.ROI_HEADS.IN_FEATURES", ["own"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64]], "MODEL.RESNETS.OUT_FEATURES", ["own"]),
)


@pytest.fixture
def registered():
    parts = ((BACKBONE_REGISTRY, OwnNet), (ROI_HEADS_REGISTRY, OwnHeads), (ROI_BOX_HEAD_REGISTRY, OwnBoxHead))
    for registry, part in parts:
        registry.register(part)
    yield
    for registry, part in parts:
        registry._obj_map.pop(part.__name__)


def test_backbones_and_heads_of_its_registries_train_and_predict(registered, tmp_path):
    run = detection.train(CONFIG, output_dir=tmp_path / "run", overrides=[*QUICK, *OWN, *ON_OWN], device="cpu")
    assert OwnHeads.used == 1
    model = run.detector.model
    assert (type(model.backbone), type(model.roi_heads)) == (OwnNet, OwnHeads)
    assert type(model.roi_heads.box_head) is OwnBoxHead
    run.detector(next((mini_set_root() / "val").iterdir()))
    # It goes on from its own weights; a backbone's file is refused, as nobody knows its names.
    again = detection.train(
        CONFIG,
        output_dir=tmp_path / "again",
        overrides=[*QUICK, *OWN, *ON_OWN],
        device="cpu",
        weights=run.folder / "model_final.pth",
    )
    assert "whole detector" in (again.folder / "log.txt").read_text()
    assert "a network of your own" in (again.folder / "log.txt").read_text()
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "network.pth")
    with pytest.raises(WeightsError, match="'OwnNet' is your own network: let it load its weights"):
        detection.train(
            CONFIG,
            output_dir=tmp_path / "no",
            overrides=[*QUICK, *OWN, *ON_OWN],
            device="cpu",
            weights=tmp_path / "network.pth",
        )


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("MODEL.BACKBONE.NAME", "OwnNett"), "did you mean 'OwnNet'"),
        (("MODEL.BACKBONE.NAME", "OwnNet", "MODEL.ROI_HEADS.NAME", "C4ROIHeads"), "OwnNet is your own"),
        (("MODEL.BACKBONE.NAME", "OwnNet", "MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT", True), "OwnNet is your own"),
        (("MODEL.BACKBONE.NAME", "build_mnasnet_backbone"), "MODEL.BACKBONE.NAME is 'build_mnasnet_backbone'"),
        (("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.DEPTH", 77), "depth 77"),
    ],
)
def test_what_cannot_be_combined_is_named(registered, pairs, said):
    with pytest.raises(ConfigError, match=said):
        detection.get_config(CONFIG, list(pairs))


def test_its_own_names_of_resnets_are_ours(tmp_path):
    text = "MODEL:\n  BACKBONE:\n    NAME: build_resnet_fpn_backbone\n  RESNETS:\n    DEPTH: 101\n    NUM_GROUPS: 32\n"
    path = tmp_path / "theirs.yaml"
    path.write_text(text + "    WIDTH_PER_GROUP: 8\n    RES2_OUT_CHANNELS: 256\nDATASETS:\n  TRAIN: ['mini_train']\n")
    config = detection.get_config(path)
    assert config.MODEL.BACKBONE.NAME == "resnext101_32x8d_fpn"


def test_default_trainer_with_our_config_and_our_sets(tmp_path):
    class Trainer(DefaultTrainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            return COCOEvaluator(dataset_name, output_dir=str(tmp_path / "found"))

    changes = [item for pair in zip(QUICK[::2], QUICK[1::2]) if pair[0] != "DATALOADER.NUM_WORKERS" for item in pair]
    config = detection.get_config(CONFIG, [*changes, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)])
    assert config.DATASETS.TRAIN == ("mini_train",)
    trainer = Trainer(config)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.iter == 0 and (tmp_path / "model_final.pth").is_file()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines == [] or lines[-1]["total_loss"] > 0


def test_our_networks_in_a_lazy_config():
    from detection.modeling.backbone import ResNet

    network = instantiate(LazyCall(ResNet)(name="resnet18", out_features=["res4"]))
    assert network.output_shape() == {"res4": ShapeSpec(channels=256, stride=16)}
    assert network(torch.zeros(1, 3, 64, 64))["res4"].shape == (1, 256, 4, 4)


def test_our_networks_in_its_own_config():
    config = get_cfg()
    config.MODEL.BACKBONE.NAME, config.MODEL.DEVICE = "resnet18_fpn", "cpu"
    config.MODEL.RESNETS.OUT_FEATURES = config.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    from detectron2.modeling import build_backbone

    assert build_backbone(config).output_shape()["p4"].stride == 16

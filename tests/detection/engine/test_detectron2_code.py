"""Code written for detectron2 keeps working: networks and heads of its registries, its trainer, its data catalog."""

from __future__ import annotations

import copy
import json
import os

import cv2
import numpy as np
import pytest
import torch
from runs import keys
from torch import nn

import detection
from backbone import ConfigError, DataError, WeightsError
from backbone.common.mini_set import mini_set_root
from backbone.engine import distributed

detection.register()

from detectron2.config import LazyCall, get_cfg, instantiate  # noqa: E402
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.data.datasets import load_coco_json, register_coco_instances  # noqa: E402
from detectron2.engine import DefaultTrainer  # noqa: E402
from detectron2.evaluation import COCOEvaluator  # noqa: E402
from detectron2.layers import ShapeSpec  # noqa: E402
from detectron2.modeling import BACKBONE_REGISTRY, ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY, Backbone  # noqa: E402
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, StandardROIHeads  # noqa: E402
from detectron2.structures import BoxMode  # noqa: E402

from detection.engine.datasets import load_sets  # noqa: E402

CONFIG = "mini_faster_rcnn_r18.yaml"
QUICK = keys({"SOLVER.MAX_ITER": 1, "DATALOADER.NUM_WORKERS": 0, "TEST.PICTURES": 0, "SOLVER.CHECKPOINT_PERIOD": 0})

QUICK_ANY = [item for pair in zip(QUICK[::2], QUICK[1::2]) if pair[0] != "DATASETS.TEST" for item in pair]


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

    here = ("MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path), "SOLVER.CHECKPOINT_PERIOD", 0)
    config = detection.get_config(CONFIG, [*QUICK, *here])
    assert config.DATASETS.TRAIN == ("mini_train",)
    trainer = Trainer(config)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.iter == 1 and (tmp_path / "model_final.pth").is_file()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines == [] or lines[-1]["total_loss"] > 0


def test_numbers_that_stand_for_others_are_resolved_for_its_trainer(monkeypatch):
    """The cores are shared out to the processes of the GPUs, or to those that run."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12))
    own = ("SOLVER.CHECKPOINT_PERIOD", 0, "SOLVER.MAX_ITER", 40, "MODEL.DEVICE")

    def numbers(device: str) -> tuple[int, int]:
        config = detection.get_config(CONFIG, [*own, device])
        return config.DATALOADER.NUM_WORKERS, config.SOLVER.CHECKPOINT_PERIOD

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert numbers("cpu") == (8, 40) and numbers("cuda") == (3, 40)
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert numbers("cpu") == numbers("cuda") == (6, 40)
    config = detection.get_config(CONFIG, ["DATALOADER.NUM_WORKERS", 5, "SOLVER.CHECKPOINT_PERIOD", 7])
    assert (config.DATALOADER.NUM_WORKERS, config.SOLVER.CHECKPOINT_PERIOD) == (5, 7)


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


# -- data sets


@pytest.fixture(scope="module")
def own_sets():
    """Two sets in the DatasetCatalog: the mini set's first images read by detectron2, and one made by hand."""
    root = mini_set_root()
    register_coco_instances("own_coco", {}, str(root / "annotations" / "instances_val.json"), str(root / "val"))
    by_hand = [
        {
            "file_name": str(path),
            "image_id": f"image {index}",
            "width": 160,
            "height": 120,
            "annotations": [
                {"bbox": [10, 20, 70, 90], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1},
                {"bbox": [0.5, 0.5, 0.1, 0.2], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 1},
            ],
        }
        for index, path in enumerate(sorted((root / "val").iterdir())[:3])
    ]
    for record in by_hand:
        record["height"], record["width"] = cv2.imread(record["file_name"]).shape[:2]
        record["annotations"][1]["bbox"] = [0, 0, record["width"], 30]
    DatasetCatalog.register("own_hand", lambda: by_hand)
    MetadataCatalog.get("own_hand").set(thing_classes=["cat", "dog"])
    yield by_hand
    for name in ("own_coco", "own_hand"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def loaded(name: str, **changes):
    values = [item for key, value in changes.items() for item in (key.replace("__", "."), value)]
    return load_sets(
        detection.get_config(CONFIG, ["DATASETS.TRAIN", (name,), *values, "DATASETS.TEST", (name,)]), training=True
    )


def test_a_set_of_its_catalog_is_the_set_of_its_file(own_sets):
    """The same images, boxes, classes and ids as the JSON file that detectron2 has read."""
    theirs, ours = loaded("own_coco", MODEL__MASK_ON=True).train, loaded("mini_val", MODEL__MASK_ON=True).train
    assert (theirs.classes, theirs.category_ids) == (ours.classes, ours.category_ids)
    assert theirs.image_ids.tolist() == ours.image_ids.tolist()
    assert [theirs.path(index) for index in range(len(theirs))] == [ours.path(index) for index in range(len(ours))]
    for name in ("boxes", "labels", "crowd", "starts", "sizes"):
        assert np.allclose(getattr(theirs, name), getattr(ours, name)), name
    assert len(theirs.segmentations) == len(ours.segmentations)


def test_a_set_made_by_hand_trains_and_tests(own_sets, tmp_path):
    run = detection.train(
        CONFIG, train="own_hand", val="own_hand", output_dir=tmp_path / "run", overrides=QUICK_ANY, device="cpu"
    )
    assert run.detector.classes == ["cat", "dog"] and run.detector.category_ids == [0, 1]
    assert "3 images" in (run.folder / "log.txt").read_text()
    assert run.metrics["bbox"]["AP"] >= 0
    images = loaded("own_hand").train
    assert images.boxes[0].tolist() == [10, 20, 70, 90] and images.crowd.tolist() == [False, True] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record.pop("width"), "no 'width'"),
        (lambda record: record["annotations"][0].pop("bbox"), "no 'bbox'"),
        (lambda record: record["annotations"][0].update(category_id=7), "no 7"),
        (lambda record: record["annotations"][0].update(bbox=[1, 2, 3]), "own_hand: a record is not"),
        (lambda record: record.update(file_name="/no/such.jpg"), "/no: no such folder"),
        # check_data.py cannot read it.
        (lambda record: record["annotations"][0].update(bbox=[10, 20, 10, 90]), "(?s)empty-box(?!.*check_data)"),
    ],
)
def test_records_that_are_wrong_are_named(own_sets, monkeypatch, change, said):
    record = copy.deepcopy(own_sets[0])
    change(record)
    monkeypatch.setattr(DatasetCatalog, "data", {**DatasetCatalog.data, "own_hand": lambda: [record]})
    with pytest.raises(DataError, match=said):
        loaded("own_hand")


def test_our_sets_in_its_catalog():
    found, ours = DatasetCatalog.get("mini_val"), loaded("mini_val", MODEL__MASK_ON=True).train
    theirs = load_coco_json(MetadataCatalog.get("mini_val").json_file, str(mini_set_root() / "val"), "compare")
    assert len(found) == len(theirs) == len(ours)
    for own, other in zip(found, theirs):
        assert {key: own[key] for key in ("file_name", "image_id", "height", "width")} == {
            key: other[key] for key in ("file_name", "image_id", "height", "width")
        }
        assert [item["category_id"] for item in own["annotations"]] == [i["category_id"] for i in other["annotations"]]
        boxes = [BoxMode.convert(i["bbox"], i["bbox_mode"], BoxMode.XYXY_ABS) for i in other["annotations"]]
        assert np.allclose([item["bbox"] for item in own["annotations"]], boxes, atol=1e-4) or not boxes
    MetadataCatalog.remove("compare")
    assert MetadataCatalog.get("mini_val").thing_classes == ours.classes
    detection.register()
    assert {"coco_2017_train", "mini_train", "voc_0712"} <= set(DatasetCatalog.list())

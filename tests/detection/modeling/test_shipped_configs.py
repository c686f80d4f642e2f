"""Every config in configs/: it loads, it builds, and its numbers are the paper's or detectron2's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from peers import config, detector_configs
from torch import nn

from backbone.common.mini_set import CLASSES
from backbone.engine.config import CONFIG_FOLDER, differences, get, to_plain
from backbone.engine.loading import resolve_workers
from detection.config.detectron2_config import zoo_config
from detection.config.names import classes_key
from detection.data.catalog import known_sets

NAMES = detector_configs()

# He et al., "Deep Residual Learning for Image Recognition", Sec. 4.3 and Appendix A, with the hyper-parameters of
# Faster R-CNN (Ren et al., 2015) that it builds on.
PAPER = {
    # "Networks on Conv feature maps": conv1..conv4_x are shared, conv5_x runs on each region.
    "MODEL.BACKBONE.NAME": "resnet101",
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.NAME": "C4ROIHeads",
    "MODEL.RESNETS.DEPTH": 101,
    # The authors' networks have the stride in the first 1x1 convolution.
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    # "The BN layers are fixed": linear activations with constant offsets and scales.
    "MODEL.RESNETS.NORM": "FrozenBN",
    # RoI pooling before conv5_1.
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    # 300 proposals at test time, NMS 0.7 between them.
    "MODEL.RPN.POST_NMS_TOPK_TEST": 300,
    "MODEL.RPN.NMS_THRESH": 0.7,
    # 256 anchors an image; 128 regions, 25 % of them foreground.
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 128,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    # Detections: NMS 0.3, scores from 0.05.
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    # Shorter side 600, longer at most 1000; no multi-scale training.
    "INPUT.MIN_SIZE_TRAIN": (600,),
    "INPUT.MAX_SIZE_TRAIN": 1000,
    "INPUT.MIN_SIZE_TEST": 600,
    "INPUT.MAX_SIZE_TEST": 1000,
    "INPUT.RANDOM_FLIP": "horizontal",
    # COCO: 8 GPUs with an image each; 240k iterations at 1e-3, then 80k at 1e-4.
    "SOLVER.REFERENCE_BATCH_SIZE": 8,
    "SOLVER.IMS_PER_BATCH": 8,
    "SOLVER.BASE_LR": 1e-3,
    "SOLVER.STEPS": (240_000,),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MAX_ITER": 240_000 + 80_000,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "DATASETS.TRAIN": ("coco_2017_train",),
    "DATASETS.TEST": ("coco_2017_val",),
}


def meta_model(settings: CfgNode) -> nn.Module:
    """Build the model without memory or arithmetic."""
    with torch.device("meta"):
        return build_model(settings)


@pytest.mark.parametrize("key", PAPER)
def test_the_papers_detector(key):
    assert get(config("coco_faster_rcnn_r101.yaml"), key) == PAPER[key]


def test_layers_of_the_papers_detector():
    model = meta_model(config("coco_faster_rcnn_r101.yaml", MODEL__DEVICE="meta"))
    layers = [name for name, module in model.backbone.named_modules() if isinstance(module, nn.Conv2d)]
    # "91 convolutions in ResNet-101": all layers up to conv4_x with a stride of 16, shortcuts not counted.
    assert len([name for name in layers if "downsample" not in name]) == 91
    assert model.backbone.output_shape()["res4"].stride == 16
    # conv5_x: 9 layers more.
    head = [name for name, module in model.roi_heads.res5.named_modules() if isinstance(module, nn.Conv2d)]
    assert len([name for name in head if "downsample" not in name]) == 9
    # Together, all convolutions of ResNet-101: 44,549,160 parameters less those of fc and of BN.
    convolutions = sum(p.numel() for part in (model.backbone, model.roi_heads.res5) for p in part.parameters())
    assert convolutions == 44_549_160 - 2_049_000 - 105_344
    assert model.roi_heads.box_predictor.cls_score.out_features == 81
    assert model.roi_heads.box_predictor.bbox_pred.out_features == 320


def test_the_same_detector_on_resnet50():
    other = to_plain(config("coco_faster_rcnn_r50.yaml"))
    assert set(differences(to_plain(config("coco_faster_rcnn_r101.yaml")), other)) == {
        "MODEL.BACKBONE.NAME",
        "MODEL.RESNETS.DEPTH",
    }


# What differs from detectron2's configs of the same name, and the value here.
OURS = {
    # Preprocessing and stride placement of torchvision's weights.
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.WEIGHTS": "",
    "MODEL.DEVICE": "cpu",
    # A run can be repeated to the same bits, evaluates on its way, and takes the machine's cores for the loader.
    "SEED": 0,
    "TEST.EVAL_PERIOD": 10000,
    "DATALOADER.NUM_WORKERS": resolve_workers(-1, 1),
}
# Our head of the same layers.
OUR_C4 = {"MODEL.ROI_HEADS.NAME": "C4ROIHeads"}


@pytest.mark.parametrize(
    ("name", "peer", "network"),
    [
        ("coco_faster_rcnn_r50_fpn.yaml", "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "resnet50_fpn"),
        ("coco_faster_rcnn_r50_fpn_3x.yaml", "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", "resnet50_fpn"),
        ("coco_faster_rcnn_r101_fpn_3x.yaml", "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml", "resnet101_fpn"),
        ("coco_mask_rcnn_r50_fpn.yaml", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "resnet50_fpn"),
        ("coco_mask_rcnn_r50.yaml", "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", "resnet50"),
        ("coco_keypoint_rcnn_r50_fpn.yaml", "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", "resnet50_fpn"),
        ("coco_cascade_mask_rcnn_r50_fpn.yaml", "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", "resnet50_fpn"),
        ("coco_retinanet_r50_fpn.yaml", "COCO-Detection/retinanet_R_50_FPN_1x.yaml", "resnet50_fpn_p6p7"),
    ],
)
def test_modern_configs_equal_detectron2(name, peer, network):
    theirs = zoo_config(peer)
    ours = config(name)
    expected = {**OURS, "MODEL.BACKBONE.NAME": network, **({} if "_fpn" in network else OUR_C4)}
    for key in differences(to_plain(theirs), to_plain(ours)):
        if has(theirs, key):
            assert key in expected, f"{key}: {get(theirs, key)} in detectron2, {get(ours, key)} here"
            assert get(ours, key) == expected[key]


def has(settings: CfgNode, key: str) -> bool:
    for part in key.split("."):
        if part not in settings:
            return False
        settings = settings[part]
    return True


@pytest.mark.parametrize("name", ["faster_rcnn_{}_fpn", "mask_rcnn_{}_fpn", "mask_rcnn_{}", "retinanet_{}_fpn"])
def test_resnet101_differs_by_its_depth_alone(name):
    ours = [to_plain(config(f"coco_{name.format(depth)}.yaml")) for depth in ("r50", "r101")]
    assert set(differences(*ours)) == {"MODEL.BACKBONE.NAME", "MODEL.RESNETS.DEPTH"}


def test_configs_that_people_are_told_of_are_there():
    detectors = (
        "faster_rcnn_r101",
        "faster_rcnn_r50",
        "faster_rcnn_r101_fpn",
        "faster_rcnn_r50_fpn",
        *("mask_rcnn_r50", "mask_rcnn_r101", "mask_rcnn_r50_fpn", "mask_rcnn_r101_fpn"),
        *("retinanet_r50_fpn", "retinanet_r101_fpn", "cascade_rcnn_r50_fpn", "cascade_mask_rcnn_r50_fpn"),
        "keypoint_rcnn_r50_fpn",
    )
    promised = {*(f"coco_{detector}" for detector in detectors), "mini_faster_rcnn_r18"}
    assert {f"{name}.yaml" for name in promised} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_model_builds_and_fits_together(name):
    settings = config(name, MODEL__DEVICE="meta")
    model = meta_model(settings)
    outputs = model.backbone.output_shape()
    one_stage = "retinanet" in name
    of_anchors = (settings.MODEL.RETINANET if one_stage else settings.MODEL.RPN).IN_FEATURES
    # All is there that is read, and nothing is computed that nobody reads.
    assert set(outputs) == {*of_anchors, *(() if one_stage else settings.MODEL.ROI_HEADS.IN_FEATURES)}
    assert len(settings.MODEL.ANCHOR_GENERATOR.SIZES) == len(of_anchors)
    assert one_stage or hasattr(model.roi_heads, "mask_head") == ("mask" in name)
    # Batch statistics that are frozen must come from weights; those that move start from nothing frozen.
    if settings.MODEL.RESNETS.NORM != "FrozenBN":
        assert settings.MODEL.BACKBONE.FREEZE_AT == 0
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_name_says_what_it_is(name):
    settings = config(name)
    network = re.search(r"_(r\d+|vgg16)", name)[1].replace("r", "resnet")
    tail = "_fpn" if "_fpn" in name or name.startswith(("bccd", "mini")) else ""
    tail += "_p6p7" if "retinanet" in name else ""
    assert f"{network}{tail}" == settings.MODEL.BACKBONE.NAME
    assert settings.MODEL.MASK_ON is ("mask" in name)
    source = name.split("_")[0]
    source = "keypoints_coco" if "keypoint" in name else source
    sets = {"bccd": "custom", "finetune": "custom"}.get(source, source)
    assert all(entry.startswith(sets) for entry in (*settings.DATASETS.TRAIN, *settings.DATASETS.TEST))
    classes = {"bccd": 3, "finetune": 80, "coco": 80, "keypoints_coco": 1}
    classes |= {"imagenet": 200, "mini": len(CLASSES), "voc": 20}
    assert classes[source] == get(settings, classes_key(settings))


@pytest.mark.parametrize("name", NAMES)
def test_values_are_sane(name):
    settings = config(name)
    solver, inputs = settings.SOLVER, settings.INPUT
    assert solver.IMS_PER_BATCH == solver.REFERENCE_BATCH_SIZE
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        assert list(solver.STEPS) == sorted(set(solver.STEPS))
        assert solver.STEPS[-1] < solver.MAX_ITER
        assert solver.STEPS[0] > solver.WARMUP_ITERS
    assert 0 < solver.CHECKPOINT_PERIOD <= solver.MAX_ITER
    assert settings.TEST.EVAL_PERIOD < solver.MAX_ITER
    # From 1e-4 (the paper's 1e-3 for 8 images) to 5e-3 (BN or GN from random weights) an image of the batch.
    assert 1e-4 < solver.BASE_LR / solver.IMS_PER_BATCH <= 5e-3
    assert solver.AUTO_SCALE
    assert not solver.AMP.ENABLED
    assert max(inputs.MIN_SIZE_TRAIN) <= inputs.MAX_SIZE_TRAIN
    assert inputs.MIN_SIZE_TEST <= inputs.MAX_SIZE_TEST
    assert inputs.MIN_SIZE_TEST in inputs.MIN_SIZE_TRAIN
    assert set(settings.DATASETS.TRAIN) | set(settings.DATASETS.TEST) <= set(known_sets())
    assert settings.DATASETS.TRAIN != settings.DATASETS.TEST
    assert bool(settings.MODEL.WEIGHTS) == name.startswith("finetune_")
    assert settings.is_frozen()


def test_no_base_is_left_over():
    texts = [path.read_text() for path in CONFIG_FOLDER.rglob("*.yaml")]
    used = {Path(base).name for text in texts for line in re.findall(r"^_BASE_:(.*)$", text, re.M)
            for base in re.findall(r"[\w/]+\.yaml", line)}  # fmt: skip
    assert {path.name for path in (CONFIG_FOLDER / "base").glob("*.yaml")} <= used

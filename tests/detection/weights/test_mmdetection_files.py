"""Files of MMDetection's detectors: what is read of their config, what is assumed without one, what is refused.

Names and shapes only, without MMDetection; `test_mmdetection_detectors.py` compares with it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import backbone
from backbone import ConfigError, WeightsError
from backbone.engine.config import put
from backbone.weights.layouts import LAYOUTS
from detection import get_config
from detection.weights.mmdetection_files import MMDetectionLayout
from detection.weights.mmdetection_model import config_text

LAYOUT = MMDetectionLayout()
CAFFE = """
model = dict(type='FasterRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(type='ResNet', depth=18, style='caffe', norm_cfg=dict(type='BN', eps=0.001)),
    rpn_head=dict(anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0],
        strides=[4, 8, 16, 32, 64], center_offset=0.5), code=__import__('os').system('exit')),
    roi_head=dict(type='StandardRoIHead', bbox_head=dict(bbox_coder=dict(type='DeltaXYWHBBoxCoder',
        target_means=[0., 0., 0., 0.], target_stds=[0.05, 0.05, 0.1, 0.1])),
        bbox_roi_extractor=dict(type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=7,
            sampling_ratio=2, aligned=False))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300, nms=dict(type='nms', iou_threshold=0.6), min_bbox_size=2),
        rcnn=dict(score_thr=0.1, nms=dict(type='nms', iou_threshold=0.4), max_per_img=50)))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=(1000, 600), flip=False,
    transforms=[dict(type='Resize', keep_ratio=True), dict(type='Pad', size_divisor=64)])]
"""
# What CAFFE says, in our keys.
SAID = {
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 600,
    "INPUT.MAX_SIZE_TEST": 1000,
    "MODEL.PIXEL_MEAN": [1.0, 2.0, 3.0],
    "MODEL.BACKBONE.NAME": "resnet18_fpn",
    "MODEL.BACKBONE.NORM_EPS": 0.001,
    "MODEL.BACKBONE.SIZE_DIVISIBILITY": 64,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16.0], [32.0], [64.0], [128.0], [256.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 500,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 300,
    "MODEL.RPN.NMS_THRESH": 0.6,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 2,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (20.0, 20.0, 10.0, 10.0),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.1,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.4,
    "MODEL.ROI_HEADS.NUM_CLASSES": 2,
    "TEST.DETECTIONS_PER_IMAGE": 50,
}


def tensors_of(**more: tuple[int, ...]) -> dict[str, Tensor]:
    """Names and shapes of a Faster R-CNN on ResNet-18 with a pyramid and two classes; `more` replaces rows."""
    with torch.device("meta"):
        network = backbone.create("resnet18", norm="bn")
        body = LAYOUTS["mmdet"].from_ours(network.state_dict(), network)
        found = {f"backbone.{name}": value for name, value in body.items()}
        layers: dict[str, tuple[int, ...]] = {}
        for index, channels in enumerate((64, 128, 256, 512)):
            layers |= {f"neck.lateral_convs.{index}.conv": (8, channels, 1, 1)}
            layers |= {f"neck.fpn_convs.{index}.conv": (8, 8, 3, 3)}
        layers |= {
            "rpn_head.rpn_conv": (8, 8, 3, 3),
            "rpn_head.rpn_cls": (3, 8, 1, 1),
            "rpn_head.rpn_reg": (12, 8, 1, 1),
        }
        head = "roi_head.bbox_head."
        layers |= {f"{head}shared_fcs.0": (16, 392), f"{head}shared_fcs.1": (16, 16)}
        layers |= {f"{head}fc_cls": (3, 16), f"{head}fc_reg": (8, 16)} | more
        for name, shape in layers.items():
            found |= {f"{name}.weight": torch.empty(shape), f"{name}.bias": torch.empty(shape[0])}
    return found


def flat(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("place", ["cfg", "config"])
def test_what_the_config_says(place):
    meta = {place: CAFFE, "CLASSES": ("cat", "dog")}
    read = LAYOUT.read({"meta": meta}, tensors_of(), "epoch_12.pth")
    assert {key: flat(read.config, key) for key in SAID} == SAID
    assert (read.classes, read.usual, read.notes) == (["cat", "dog"], False, [])
    # The weights decide what computes; thresholds and sizes of a test are the user's.
    assert read.wants["MODEL.BACKBONE.NORM_EPS"] == 0.001 and read.wants["INPUT.FORMAT"] == "BGR"
    chosen = ("INPUT.MIN_SIZE_TEST", "MODEL.RPN.NMS_THRESH", "MODEL.ROI_HEADS.SCORE_THRESH_TEST")
    assert not read.wants.keys() & set(chosen)


@pytest.mark.parametrize(
    ("name", "order", "stride"),
    [("faster_rcnn_r50_fpn_1x.pth", "RGB", False), ("faster_rcnn_r50_caffe_fpn_1x.pth", "BGR", True)],
)
def test_without_a_config_the_name_tells_the_style(name, order, stride):
    read = LAYOUT.read({}, tensors_of(), f"/checkpoints/{name}")
    assert (order, stride) == (read.config.INPUT.FORMAT, read.config.MODEL.RESNETS.STRIDE_IN_1X1)
    assert read.usual and "no config in it" in read.notes[0]
    assert read.config.MODEL.ANCHOR_GENERATOR.SIZES == [[32.0], [64.0], [128.0], [256.0], [512.0]]
    assert tuple(read.config.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS) == (10.0, 10.0, 5.0, 5.0)


def config(old: str, new: str) -> dict[str, Any]:
    assert old in CAFFE
    return {"meta": {"cfg": CAFFE.replace(old, new), "dataset_meta": {"classes": ("cat", "dog")}}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (config("type='AnchorGenerator'", "type='LegacyAnchorGenerator'"), "anchor_generator.type is 'Legacy"),
        (config("scales=[4]", "scales=[4, 8]"), "has 3 anchors at a place, its config has 6"),
        (config("type='StandardRoIHead'", "type='DoubleHeadRoIHead'"), "head on regions is none"),
        (config("target_means=[0., 0., 0., 0.]", "target_means=[0., 0., 0., 1.]"), "boxes are coded with means"),
        (config("nms=dict(type='nms', iou_threshold=0.4)", "nms=dict(type='soft_nms')"), "tested with soft_nms"),
        (config("type='SingleRoIExtractor'", "type='SingleRoIExtractor', finest_scale=32"), "finest_scale is 32"),
        ({"meta": {"cfg": CAFFE, "CLASSES": ("cat",)}}, "names 1 class"),
    ],
)
def test_what_ours_cannot_be_is_refused(content, said):
    with pytest.raises(WeightsError, match=f"epoch_12.pth: .*{said}"):
        LAYOUT.read(content, tensors_of(), "epoch_12.pth")


def test_other_detectors_are_refused():
    tensors = tensors_of()
    assert LAYOUT.recognise(tensors)
    unknown = tensors | {"roi_head.bbox_head.shared_convs.0.conv.weight": torch.empty(1)}
    former = {name.replace("roi_head.", ""): value for name, value in tensors.items()}
    fcos = {name: value for name, value in tensors.items() if name.startswith(("backbone.", "neck."))}
    for given, said in ((unknown, "shared_convs"), (former, "of MMDetection 1"), (fcos, "--backbone-only takes its")):
        with pytest.raises(WeightsError, match=f"epoch_12.pth: .*{said}"):
            LAYOUT.read({}, given, "epoch_12.pth")
    # A segmentation network of theirs is no detector.
    assert not LAYOUT.recognise([name.replace("neck.", "decode_head.") for name in fcos])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MODEL.BACKBONE.NAME", "preact_resnet50_fpn", "the network preact_resnet50_fpn"),
        ("MODEL.BACKBONE.CEIL_POOL", True, "pooling that rounds up"),
        ("MODEL.RESNETS.NORM", "GN", "norms of this kind"),
        ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "the head CascadeROIHeads"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool", "other than RoIAlign"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [500]], "multiples of each level's stride"),
    ],
)
def test_what_mmdetection_has_not_is_not_written(key, value, said):
    config = get_config("coco_faster_rcnn_r50_fpn.yaml").clone()
    config.defrost()
    put(config, key, value)
    with pytest.raises(ConfigError, match=f"{said}.*nothing is written"):
        config_text(config, "its config")

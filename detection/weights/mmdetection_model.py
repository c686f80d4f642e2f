"""MMDetection's config of a detector of ours, as text that its own Config reads."""

from __future__ import annotations

import pprint
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from backbone import ConfigError
from backbone.networks.architectures import Architecture

from ..config.names import FPN_SUFFIX, NORM_NAMES, P6P7_SUFFIX, architecture_of, is_retinanet

# Depths that MMDetection's ResNet and ResNeXt have, by kind.
DEPTHS = {"ResNet": (18, 34, 50, 101, 152), "ResNeXt": (50, 101, 152)}
HEADS = {"StandardROIHeads": False, "RegionROIHeads": False, "Res5ROIHeads": True, "C4ROIHeads": True}
POOLERS = {"ROIAlignV2": True, "ROIAlign": False}
# Of our keys, the one value that MMDetection's networks and heads have; names end with the words for others.
ONLY = {
    "BACKBONE.CEIL_POOL": (False, "pooling that rounds up"),
    "FPN.NORM": ("", "norms in the pyramid"),
    "FPN.FUSE_TYPE": ("sum", "another fusion in the pyramid"),
    "ROI_BOX_HEAD.GLOBAL_CONTEXT": (False, "global context"),
    "ROI_BOX_HEAD.CLASS_LOSS": ("softmax", "a box head whose classes do not exclude each other"),
    "ROI_BOX_HEAD.NUM_CONV": (0, "convolutions in the box head"),
    "ROI_BOX_HEAD.NORM": ("", "norms in the box head"),
    "ROI_MASK_HEAD.NORM": ("", "norms in the mask head"),
    "RETINANET.NORM": ("", "norms in RetinaNet's head"),
    "ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator", "other anchors"),
}


def config_text(config: CfgNode, source: str) -> str:
    """Return the text of MMDetection's config, whose `model` is our detector, and whose pipeline reads test images.

    Raises:
        ConfigError: MMDetection has no such network or head.
    """
    name, table = architecture_of(config)
    if different := _different(config, table):
        raise ConfigError(f"{source}: MMDetection has not {different}; nothing is written")
    model = _one_stage(config) if is_retinanet(config) else _two_stages(config)
    neck = {"neck": _neck(config, table)} if FPN_SUFFIX in config.MODEL.BACKBONE.NAME else {}
    model |= {"data_preprocessor": _images(config), "backbone": _network(config, name, table)} | neck
    inputs = config.INPUT
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (inputs.MAX_SIZE_TEST, inputs.MIN_SIZE_TEST), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": keys},
    ]
    parts = {"default_scope": "mmdet", "model": model, "test_pipeline": pipeline}
    lines = [f"{part} = {pprint.pformat(value, width=118, sort_dicts=False)}\n" for part, value in parts.items()]
    return "\n".join([*lines, 'test_dataloader = {"dataset": {"type": "CocoDataset", "pipeline": test_pipeline}}\n'])


def _different(config: CfgNode, table: Architecture) -> str | None:
    """Return what MMDetection has not, in words."""
    model = config.MODEL
    kind = "ResNet" if table.groups == 1 else "ResNeXt"
    form = (table.family, table.stem, table.shortcut)
    if form != ("resnet", "conv7", "B") or table.depth not in DEPTHS[kind] or table.base_width not in (4, 8, 64):
        return f"the network {model.BACKBONE.NAME}"
    if model.BACKBONE.SHORTCUT not in ("", "B") or NORM_NAMES[model.RESNETS.NORM] == "gn":
        return "shortcuts or norms of this kind"
    if config.INPUT.FORMAT not in ("BGR", "RGB"):
        return "images that are not of three colours"
    for key, (value, words) in ONLY.items():
        section, name = key.split(".")
        if model[section][name] != value:
            return words
    if is_retinanet(config):
        return None
    if model.KEYPOINT_ON:
        return "keypoint heads of this kind"
    if model.ROI_HEADS.NAME not in HEADS:
        return f"the head {model.ROI_HEADS.NAME}"
    if HEADS[model.ROI_HEADS.NAME] and model.BACKBONE.AVERAGE_DOWN:
        return "the averaging shortcuts of ResNet-D in a C4 head"
    parts = (model.ROI_BOX_HEAD, model.ROI_MASK_HEAD) if model.MASK_ON else (model.ROI_BOX_HEAD,)
    if any(part.POOLER_TYPE not in POOLERS for part in parts):
        return "a pooling of regions other than RoIAlign"
    return None if len(model.RPN.CONV_DIMS) == 1 else "an RPN of several convolutions"


def _images(config: CfgNode) -> dict[str, Any]:
    model = config.MODEL
    pyramid = 32 if FPN_SUFFIX in model.BACKBONE.NAME else 1
    found = {
        "type": "DetDataPreprocessor",
        "mean": [float(value) for value in model.PIXEL_MEAN],
        "std": [float(value) for value in model.PIXEL_STD],
        "bgr_to_rgb": config.INPUT.FORMAT == "RGB",
        "pad_size_divisor": max(pyramid, model.BACKBONE.SIZE_DIVISIBILITY),
    }
    return found | ({"pad_mask": True} if model.MASK_ON else {})


def _network(config: CfgNode, name: str, table: Architecture) -> dict[str, Any]:
    own, resnets = config.MODEL.BACKBONE, config.MODEL.RESNETS
    number = 3 if _has_last_stage_in_head(config) else 4
    strides, dilations = [1, 2, 2, 2], [1, 1, 1, 1]
    if number == 4 and own.OUTPUT_STRIDE < 32:
        strides[3], dilations[3] = 1, 32 // own.OUTPUT_STRIDE
        if own.OUTPUT_STRIDE == 8:
            strides[2], dilations[2] = 1, 2
    has_pyramid = FPN_SUFFIX in own.NAME
    found = {
        "type": "ResNet" if table.groups == 1 else "ResNeXt",
        "depth": table.depth,
        "num_stages": number,
        "strides": strides[:number],
        "dilations": dilations[:number],
        "out_indices": list(range(number)) if has_pyramid else [number - 1],
        "frozen_stages": own.FREEZE_AT - 1,
        "norm_cfg": _norm(config),
        "norm_eval": NORM_NAMES[resnets.NORM] == "frozen_bn",
        "style": "caffe" if resnets.STRIDE_IN_1X1 else "pytorch",
        "deep_stem": own.STEM == "deep",
        "avg_down": own.AVERAGE_DOWN,
    }
    return found | ({} if table.groups == 1 else {"groups": table.groups, "base_width": table.base_width})


def _norm(config: CfgNode) -> dict[str, Any]:
    eps = config.MODEL.BACKBONE.NORM_EPS
    return {"type": "BN", "eps": eps, "requires_grad": NORM_NAMES[config.MODEL.RESNETS.NORM] != "frozen_bn"}


def _has_last_stage_in_head(config: CfgNode) -> bool:
    return not is_retinanet(config) and HEADS.get(config.MODEL.ROI_HEADS.NAME, False)


def _neck(config: CfgNode, table: Architecture) -> dict[str, Any]:
    taken = len(config.MODEL.FPN.IN_FEATURES)
    found = {
        "type": "FPN",
        "in_channels": list(table.channels),
        "out_channels": config.MODEL.FPN.OUT_CHANNELS,
        "start_level": 4 - taken,
        "num_outs": 5,
    }
    extra = {"add_extra_convs": "on_input", "relu_before_extra_convs": config.MODEL.FPN.RELU_BEFORE_P7}
    return found | (extra if P6P7_SUFFIX in config.MODEL.BACKBONE.NAME else {})


def _anchors(config: CfgNode, features: Sequence[str]) -> dict[str, Any]:
    anchors, strides = config.MODEL.ANCHOR_GENERATOR, _strides(config, features)
    sizes = list(anchors.SIZES) * (len(strides) if len(anchors.SIZES) == 1 else 1)
    ratios = anchors.ASPECT_RATIOS
    scales = [[size / stride for size in level] for level, stride in zip(sizes, strides)]
    same = all(abs(x - y) < 1e-6 * y for level in scales for x, y in zip(level, scales[0], strict=True))
    if not same or any(list(level) != list(ratios[0]) for level in ratios):
        raise ConfigError("MMDetection's anchors are the same multiples of each level's stride; nothing is written")
    found = {"type": "AnchorGenerator", "scales": scales[0], "ratios": list(ratios[0]), "strides": strides}
    return found | ({"center_offset": anchors.OFFSET} if anchors.OFFSET else {})


def _strides(config: CfgNode, features: Sequence[str]) -> list[int]:
    """Return the strides of stages, of which dilated ones keep theirs, or of a pyramid's levels."""
    deepest = config.MODEL.BACKBONE.OUTPUT_STRIDE
    strides = [2 ** int(name[-1]) for name in features]
    return [min(stride, deepest) if name.startswith("res") else stride for name, stride in zip(features, strides)]


def _coder(weights: Sequence[float]) -> dict[str, Any]:
    stds = [1 / weight for weight in weights]
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": stds}


def _nms(threshold: float) -> dict[str, Any]:
    return {"type": "nms", "iou_threshold": threshold}


def _one_stage(config: CfgNode) -> dict[str, Any]:
    head, channels = config.MODEL.RETINANET, config.MODEL.FPN.OUT_CHANNELS
    return {
        "type": "RetinaNet",
        "train_cfg": None,
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": head.NUM_CLASSES,
            "in_channels": channels,
            "stacked_convs": head.NUM_CONVS,
            "feat_channels": channels,
            "anchor_generator": _anchors(config, head.IN_FEATURES),
            "bbox_coder": _coder(head.BBOX_REG_WEIGHTS),
        },
        "test_cfg": {
            "nms_pre": head.TOPK_CANDIDATES_TEST,
            "min_bbox_size": 0,
            "score_thr": head.SCORE_THRESH_TEST,
            "nms": _nms(head.NMS_THRESH_TEST),
            "max_per_img": config.TEST.DETECTIONS_PER_IMAGE,
        },
    }


def _two_stages(config: CfgNode) -> dict[str, Any]:
    model, (_, table) = config.MODEL, architecture_of(config)
    has_pyramid, in_head = FPN_SUFFIX in model.BACKBONE.NAME, _has_last_stage_in_head(config)
    channels = model.FPN.OUT_CHANNELS if has_pyramid else table.channels[2 if in_head else 3]
    last = table.channels[3] if in_head else channels
    rpn, box, mask = model.RPN, model.ROI_BOX_HEAD, model.ROI_MASK_HEAD
    heads: dict[str, Any] = {"type": "StandardRoIHead"}
    if in_head:
        heads["shared_head"] = {
            "type": "ResLayer",
            "depth": table.depth,
            "stage": 3,
            "stride": 2,
            "style": "caffe" if model.RESNETS.STRIDE_IN_1X1 else "pytorch",
            "norm_cfg": _norm(config),
            "norm_eval": NORM_NAMES[model.RESNETS.NORM] == "frozen_bn",
        }
    classes = {"num_classes": model.ROI_HEADS.NUM_CLASSES}
    heads["bbox_roi_extractor"] = _extractor(box, model.ROI_HEADS.IN_FEATURES, channels, config)
    heads["bbox_head"] = {
        "type": "BBoxHead" if in_head else "Shared2FCBBoxHead",
        "in_channels": last,
        "roi_feat_size": box.POOLER_RESOLUTION // (2 if in_head else 1),
        **({"with_avg_pool": True} if in_head else {"fc_out_channels": box.FC_DIM}),
        **classes,
        "reg_class_agnostic": box.CLS_AGNOSTIC_BBOX_REG,
        "bbox_coder": _coder(box.BBOX_REG_WEIGHTS),
    }
    if not in_head and box.NUM_FC != 2:
        heads["bbox_head"] |= {"type": "ConvFCBBoxHead", "num_shared_fcs": box.NUM_FC}
    if model.MASK_ON:
        pooled = None if in_head else _extractor(mask, model.ROI_HEADS.IN_FEATURES, channels, config)
        heads["mask_roi_extractor"] = pooled
        heads["mask_head"] = {
            "type": "FCNMaskHead",
            "num_convs": mask.NUM_CONV,
            "in_channels": last,
            "conv_out_channels": mask.CONV_DIM,
            "class_agnostic": mask.CLS_AGNOSTIC_MASK,
            **classes,
        }
    hidden = rpn.CONV_DIMS[0] if rpn.CONV_DIMS[0] > 0 else channels
    proposals = {
        "nms_pre": rpn.PRE_NMS_TOPK_TEST,
        "max_per_img": rpn.POST_NMS_TOPK_TEST,
        "nms": _nms(rpn.NMS_THRESH),
        "min_bbox_size": model.PROPOSAL_GENERATOR.MIN_SIZE,
    }
    regions = {
        "score_thr": model.ROI_HEADS.SCORE_THRESH_TEST,
        "nms": _nms(model.ROI_HEADS.NMS_THRESH_TEST),
        "max_per_img": config.TEST.DETECTIONS_PER_IMAGE,
        "mask_thr_binary": 0.5,
    }
    return {
        "type": "MaskRCNN" if model.MASK_ON else "FasterRCNN",
        "train_cfg": None,
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": channels,
            "feat_channels": hidden,
            "anchor_generator": _anchors(config, rpn.IN_FEATURES),
            "bbox_coder": _coder(rpn.BBOX_REG_WEIGHTS),
        },
        "roi_head": heads,
        "test_cfg": {"rpn": proposals, "rcnn": regions},
    }


def _extractor(head: CfgNode, features: Sequence[str], channels: int, config: CfgNode) -> dict[str, Any]:
    layer = {
        "type": "RoIAlign",
        "output_size": head.POOLER_RESOLUTION,
        "sampling_ratio": head.POOLER_SAMPLING_RATIO,
        "aligned": POOLERS[head.POOLER_TYPE],
    }
    strides = _strides(config, features)
    return {"type": "SingleRoIExtractor", "roi_layer": layer, "out_channels": channels, "featmap_strides": strides}

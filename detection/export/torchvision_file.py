"""A trained detector as a state dict that torchvision's own model loads strictly, and the call that builds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn
from torchvision.models import detection as models
from torchvision.models import resnet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from backbone import ConfigError
from backbone.common.files import checked_file, write_json
from backbone.common.preprocessing import IMAGENET
from backbone.engine.config import get

from ..config.names import architecture_of, is_retinanet
from ..inference.detector import Detector
from ..weights.torchvision_config import LEAST_SIDE, RATIOS, anchor_sizes
from ..weights.torchvision_files import TorchvisionLayout, labels_for
from ..weights.torchvision_names import Form, own_form_of
from .written import Written, check_target, state_of, write_checked

LAYOUT = TorchvisionLayout()
WIDTH = 256  # channels of torchvision's pyramid
# Keyword of torchvision's models -> our key and torchvision's default.
KEYWORDS = {
    "min_size": ("INPUT.MIN_SIZE_TEST", 800),
    "max_size": ("INPUT.MAX_SIZE_TEST", 1333),
    "rpn_pre_nms_top_n_test": ("MODEL.RPN.PRE_NMS_TOPK_TEST", 1000),
    "rpn_post_nms_top_n_test": ("MODEL.RPN.POST_NMS_TOPK_TEST", 1000),
    "rpn_nms_thresh": ("MODEL.RPN.NMS_THRESH", 0.7),
    "box_score_thresh": ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.05),
    "box_nms_thresh": ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.5),
    "box_detections_per_img": ("TEST.DETECTIONS_PER_IMAGE", 100),
    "bbox_reg_weights": ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 5.0)),
}
SHARED = ("min_size", "max_size")
ONE_STAGE = {key: KEYWORDS[key] for key in SHARED} | {
    "score_thresh": ("MODEL.RETINANET.SCORE_THRESH_TEST", 0.05),
    "nms_thresh": ("MODEL.RETINANET.NMS_THRESH_TEST", 0.5),
    "detections_per_img": ("TEST.DETECTIONS_PER_IMAGE", 300),
    "topk_candidates": ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", 1000),
}


@dataclass(frozen=True)
class Call:
    """A call of one of torchvision's functions, which can be made and shown."""

    function: Callable[..., Any]
    keywords: dict[str, Any]

    def make(self) -> Any:
        made = {key: value.make() if isinstance(value, Call) else value for key, value in self.keywords.items()}
        return self.function(**made)

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={_shown(value)}" for key, value in self.keywords.items())
        return f"{self.function.__name__}({shown})"


def _shown(value: Any) -> str:
    if isinstance(value, partial):
        return f"partial({value.func.__name__}, {', '.join(map(repr, value.args))})"
    return value.__name__ if isinstance(value, type) else str(value) if isinstance(value, Call) else repr(value)


def write_torchvision(detector: Detector, target: str | Path, *, overwrite: bool = False) -> Written:
    """Write a detector as a state dict of torchvision's, and the names of its labels beside it.

    The file is read back into torchvision's own model, every tensor of it, before it takes its name.

    Args:
        target: a .pth; the names get its name with .json.

    Raises:
        WeightsError: another suffix, or one of both files exists without `overwrite`.
        ConfigError: torchvision has no such network or head.
        RunError: a file cannot be written.
    """
    target = Path(target)
    beside = target.with_suffix(".json")
    check_target(target, LAYOUT.suffixes, LAYOUT.project, beside, overwrite=overwrite)
    config, state = detector.config, state_of(detector)
    translation = LAYOUT.write(state, config, detector.category_ids, str(target))
    labels = labels_for(detector.category_ids)
    call = _call(config, own_form_of(state), labels)
    stock = call.make()

    def write(path: Path) -> None:
        with checked_file(path) as file:
            torch.save(translation.tensors, file)

    write_checked(target, write, stock, LAYOUT.project)
    names = ["__background__", *("N/A" for _ in range(labels[-1]))]
    for label, name in zip(labels, detector.classes):
        names[label] = name
    write_json(beside, {"model": str(call), "categories": names})
    says = [f"{beside}: the names of its labels, and the call: {call}.load_state_dict(torch.load(...))"]
    return Written(len(translation.tensors), translation, says, list(_notes(config)))


def _notes(config: CfgNode) -> Sequence[str]:
    if not config.INPUT.FLOAT_RESIZE:
        yield "torchvision resizes in its own way (here INPUT.FLOAT_RESIZE); of the same tensor it finds the same"
    if not is_retinanet(config) and config.MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST != LEAST_SIDE:
        yield f"torchvision drops boxes with a side below {LEAST_SIDE} pixels before NMS"
    if config.MODEL.MASK_ON:
        yield "torchvision pastes masks on whole pixels: their edges differ"


def _call(config: CfgNode, form: Form, labels: Sequence[int]) -> Call:
    """Return the call of torchvision's model of this config, with random weights."""
    table = KEYWORDS if form.rpn else ONE_STAGE
    given = {key: get(config, own) for key, (own, usual) in table.items() if _plain(get(config, own)) != usual}
    mean, std = ([value / 255 for value in values] for values in (config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD))
    if config.INPUT.FORMAT == "BGR":
        mean, std = mean[::-1], std[::-1]
    for key, values, usual in (("image_mean", mean, IMAGENET.mean), ("image_std", std, IMAGENET.std)):
        if any(abs(value - other) > 1e-6 for value, other in zip(values, usual)):
            given[key] = [round(value, 6) for value in values]
    number = labels[-1] + 1
    version = _version(config, form) if form.rpn else _one_stage_version(config, form)
    if version:
        kind = "retinanet" if not form.rpn else "maskrcnn" if form.masks else "fasterrcnn"
        function = getattr(models, f"{kind}_resnet50_fpn{'_v2' if version == 2 else ''}")
        return Call(function, {"weights": None, "weights_backbone": None, "num_classes": number, **given})
    if not form.rpn and form.subnets != 4:
        raise ConfigError(f"torchvision's RetinaNet has four convolutions before each output, not {form.subnets}")
    if not form.rpn:
        return Call(models.RetinaNet, {**_one_stage(config, form, number), "num_classes": number, **given})
    model = config.MODEL
    heads: dict[str, Any] = {"rpn_head": Call(RPNHead, _rpn(config, form))}
    box, masks = model.ROI_BOX_HEAD, model.ROI_MASK_HEAD
    heads["rpn_anchor_generator"] = _anchors(config)
    heads["box_roi_pool"] = _pool(box)
    side, norm = box.POOLER_RESOLUTION, nn.BatchNorm2d if "box" in form.norms else None
    if form.is_plain:
        head = Call(TwoMLPHead, {"in_channels": WIDTH * side**2, "representation_size": box.FC_DIM})
    else:
        layers = {"conv_layers": [box.CONV_DIM] * form.convs, "fc_layers": [box.FC_DIM] * form.fcs}
        head = Call(FastRCNNConvFCHead, {"input_size": (WIDTH, side, side), **layers, "norm_layer": norm})
    predictor = Call(FastRCNNPredictor, {"in_channels": box.FC_DIM, "num_classes": number})
    heads |= {"box_head": head, "box_predictor": predictor}
    if form.masks:
        width, norm = masks.CONV_DIM, nn.BatchNorm2d if "mask" in form.norms else None
        layers = {"in_channels": WIDTH, "layers": [width] * form.masks, "dilation": 1, "norm_layer": norm}
        last = {"in_channels": width, "dim_reduced": width, "num_classes": number}
        heads |= {"mask_roi_pool": _pool(masks), "mask_head": Call(MaskRCNNHeads, layers)}
        heads["mask_predictor"] = Call(MaskRCNNPredictor, last)
    return Call(
        models.MaskRCNN if form.masks else models.FasterRCNN, {"backbone": _network(config, form), **heads, **given}
    )


def _version(config: CfgNode, form: Form) -> int:
    """Return 1 or 2 for the form of torchvision's own functions, 0 for another."""
    box, masks, anchors = config.MODEL.ROI_BOX_HEAD, config.MODEL.ROI_MASK_HEAD, config.MODEL.ANCHOR_GENERATOR
    usual = (
        architecture_of(config)[0] == "resnet50"
        and (_plain(anchors.SIZES), _plain(anchors.ASPECT_RATIOS)) == (_plain(anchor_sizes(form)), _plain(RATIOS))
        and (box.FC_DIM, box.POOLER_RESOLUTION, box.POOLER_SAMPLING_RATIO) == (1024, 7, 2)
        and (not form.masks or (form.masks, masks.CONV_DIM, masks.POOLER_RESOLUTION) == (4, WIDTH, 14))
        and (not form.masks or masks.POOLER_SAMPLING_RATIO == 2)
    )
    if usual and form.is_plain and form.rpn == 1 and not form.norms:
        return 1
    norms = {"pyramid", "box"} | ({"mask"} if form.masks else set())
    second = (form.convs, form.fcs, form.rpn, box.CONV_DIM) == (4, 1, 2, WIDTH) and form.norms == norms
    return 2 if usual and second else 0


def _one_stage_version(config: CfgNode, form: Form) -> int:
    anchors, on_p5 = config.MODEL.ANCHOR_GENERATOR, config.MODEL.FPN.P6_FROM_P5
    usual = (
        architecture_of(config)[0] == "resnet50"
        and (_plain(anchors.SIZES), _plain(anchors.ASPECT_RATIOS)) == (_plain(anchor_sizes(form)), _plain(RATIOS))
        and form.subnets == 4
    )
    return {(True, frozenset()): 1, (False, frozenset({"subnets"})): 2}.get((on_p5, form.norms), 0) if usual else 0


def _one_stage(config: CfgNode, form: Form, number: int) -> dict[str, Any]:
    name, table = architecture_of(config)
    anchors = config.MODEL.ANCHOR_GENERATOR
    below = WIDTH if config.MODEL.FPN.P6_FROM_P5 else table.channels[-1]
    top = Call(LastLevelP6P7, {"in_channels": below, "out_channels": WIDTH})
    network = {"backbone_name": name, "weights": None, "returned_layers": [2, 3, 4], "extra_blocks": top}
    places = len(anchors.SIZES[0]) * len(anchors.ASPECT_RATIOS[0])
    norm = partial(nn.GroupNorm, 32) if "subnets" in form.norms else None
    head = {"in_channels": WIDTH, "num_anchors": places, "num_classes": number, "norm_layer": norm}
    parts = {"anchor_generator": _anchors(config), "head": Call(RetinaNetHead, head)}
    return {"backbone": Call(resnet_fpn_backbone, network), **parts}


def _anchors(config: CfgNode) -> Call:
    anchors = config.MODEL.ANCHOR_GENERATOR
    sizes, ratios = (
        values if len(values) > 1 else list(values) * 5 for values in (anchors.SIZES, anchors.ASPECT_RATIOS)
    )
    return Call(AnchorGenerator, {"sizes": _plain(sizes), "aspect_ratios": _plain(ratios)})


def _network(config: CfgNode, form: Form) -> Call:
    name, table = architecture_of(config)
    if "pyramid" not in form.norms:
        return Call(resnet_fpn_backbone, {"backbone_name": name, "weights": None})
    layers = {f"layer{level - 1}": str(index) for index, level in enumerate(form.levels)}
    keywords = {"return_layers": layers, "in_channels_list": list(table.channels), "out_channels": WIDTH}
    network = Call(getattr(resnet, name), {"weights": None})
    return Call(BackboneWithFPN, {"backbone": network, **keywords, "norm_layer": nn.BatchNorm2d})


def _rpn(config: CfgNode, form: Form) -> dict[str, Any]:
    anchors = config.MODEL.ANCHOR_GENERATOR
    number = len(anchors.SIZES[0]) * len(anchors.ASPECT_RATIOS[0])
    return {"in_channels": WIDTH, "num_anchors": number, "conv_depth": form.rpn}


def _pool(head: CfgNode) -> Call:
    keywords = {"output_size": head.POOLER_RESOLUTION, "sampling_ratio": head.POOLER_SAMPLING_RATIO}
    return Call(MultiScaleRoIAlign, {"featmap_names": ["0", "1", "2", "3"], **keywords})


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value

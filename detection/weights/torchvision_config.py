"""Our config of torchvision's detectors, and what they cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor
from torchvision.models import resnet

from backbone import WeightsError
from backbone.common.preprocessing import IMAGENET
from backbone.engine.config import put
from backbone.weights.content import WeightsFile
from backbone.weights.identify import find_backbones
from backbone.weights.weight_metadata import WeightMetadata

from ..config import load_config
from ..config.names import FPN_SUFFIX, P6P7_SUFFIX, architecture_of, is_retinanet
from . import torchvision_names as names
from .keys import WEIGHT_KEYS

COUNTER = "num_batches_tracked"
USUAL_EPS = 1e-5
LEAST_SIDE = 0.01  # of a box, in pixels
ANCHORS = "TorchvisionAnchorGenerator"
RATIOS = [[0.5, 1.0, 2.0]]
SIZES = [[32], [64], [128], [256], [512]]
# Three of each level, in whole pixels.
ONE_STAGE_SIZES = [[side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))] for (side,) in SIZES]
# Beside what all weights decide: what the same tensors compute otherwise, or do not fit without.
WANTED = (
    "INPUT.EXACT_RESIZE",
    "MODEL.BACKBONE.OUTPUT_STRIDE",
    *(f"MODEL.FPN.{key}" for key in ("NORM", "OUT_CHANNELS", "IN_FEATURES")),
    "MODEL.RESNETS.OUT_FEATURES",
    *(f"MODEL.ANCHOR_GENERATOR.{key}" for key in ("SIZES", "ASPECT_RATIOS", "OFFSET")),
)
TWO_STAGES = (
    *("MODEL.RPN.CONV_DIMS", "MODEL.RPN.IN_FEATURES", "MODEL.ROI_HEADS.NAME", "MODEL.ROI_HEADS.IN_FEATURES"),
    *(f"MODEL.ROI_BOX_HEAD.{key}" for key in ("NUM_CONV", "CONV_DIM", "NUM_FC", "FC_DIM", "NORM", "MIN_SIZE_TEST")),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    *(f"MODEL.ROI_MASK_HEAD.{key}" for key in ("NUM_CONV", "CONV_DIM", "NORM")),
)
ONE_STAGE = tuple(f"MODEL.RETINANET.{key}" for key in ("IN_FEATURES", "NUM_CONVS", "NORM", "BBOX_REG_LOSS_TYPE"))


def wanted_keys(config: CfgNode) -> tuple[str, ...]:
    """Return the keys of torchvision's detector that its tensors ask for."""
    one_stage = is_retinanet(config)
    others = (".ROI_", ".RPN.") if one_stage else (".RETINANET.",)
    whole = (key for key in WEIGHT_KEYS.whole if not any(part in key for part in others))
    return (*WANTED, *(ONE_STAGE if one_stage else TWO_STAGES), *whole)


def anchor_sizes(form: names.Form) -> list[list[int]]:
    """Return the sizes of torchvision's own anchors, of each level."""
    return SIZES if form.rpn else ONE_STAGE_SIZES


def config_of(tensors: Mapping[str, Tensor], form: names.Form, classes: int, source: str) -> tuple[CfgNode, list[str]]:
    """Return our config, unfrozen, of torchvision's detector, and what was decided, in words.

    Args:
        tensors: by our names.

    Raises:
        WeightsError: its network or pyramid is none that a detector here has.
    """
    kind = "retinanet" if not form.rpn else "mask_rcnn" if form.masks else "faster_rcnn"
    config = load_config(f"coco_{kind}_r50_fpn.yaml").clone()
    config.defrost()
    body = {key.removeprefix(names.OWN_BODY): value for key, value in tensors.items() if key.startswith(names.OWN_BODY)}
    networks = find_backbones(WeightsFile(source, "torch", "torchvision", body, WeightMetadata()))
    if not networks or form.levels != ((2, 3, 4, 5) if form.rpn else (3, 4, 5)):
        raise WeightsError(f"{source}: its network or pyramid is none that a detector here has")
    numbers = IMAGENET.converted(value_range=255)
    counted = any(key.endswith(COUNTER) for key in body)
    values = {
        "INPUT.FORMAT": numbers.channel_order,
        "INPUT.FLOAT_RESIZE": True,
        "INPUT.EXACT_RESIZE": False,
        "MODEL.PIXEL_MEAN": list(numbers.mean),
        "MODEL.PIXEL_STD": list(numbers.std),
        "MODEL.BACKBONE.NAME": networks[0] + FPN_SUFFIX + ("" if form.rpn else P6P7_SUFFIX),
        "MODEL.BACKBONE.NORM_EPS": USUAL_EPS if counted else 0.0,
        "MODEL.RESNETS.NORM": "BN" if counted else "FrozenBN",
        "MODEL.FPN.NORM": "BN" if "pyramid" in form.norms else "",
        "MODEL.FPN.OUT_CHANNELS": len(tensors[f"backbone.fpn_lateral{form.levels[0]}.weight"]),
        "MODEL.ANCHOR_GENERATOR.NAME": ANCHORS,
        "MODEL.ANCHOR_GENERATOR.SIZES": anchor_sizes(form),
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": RATIOS,
        "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
        **(_two_stages(tensors, form, classes) if form.rpn else _one_stage(tensors, form, classes)),
    }
    for key, value in values.items():
        put(config, key, value)
    note = "frozen norms have an epsilon of 0, as in torchvision's own detectors on COCO and what was fine-tuned from "
    note += f"them; MODEL.BACKBONE.NORM_EPS {USUAL_EPS:g} where it was trained from a classifier"
    return config, [] if counted else [note]


def _two_stages(tensors: Mapping[str, Tensor], form: names.Form, classes: int) -> dict[str, Any]:
    head, masks = "roi_heads.box_head.", "roi_heads.mask_head."
    pooling = {"POOLER_TYPE": "ROIAlign", "POOLER_SAMPLING_RATIO": 2}
    values = {
        "MODEL.RPN.CONV_DIMS": [-1] * form.rpn,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
        "MODEL.ROI_HEADS.NAME": "RegionROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.ROI_BOX_HEAD.NUM_CONV": form.convs,
        "MODEL.ROI_BOX_HEAD.NUM_FC": form.fcs,
        "MODEL.ROI_BOX_HEAD.FC_DIM": len(tensors[f"{head}fc1.weight"]),
        "MODEL.ROI_BOX_HEAD.NORM": "BN" if "box" in form.norms else "",
        "MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST": LEAST_SIDE,
        **{f"MODEL.ROI_BOX_HEAD.{key}": value for key, value in pooling.items()},
    }
    if form.convs:
        values["MODEL.ROI_BOX_HEAD.CONV_DIM"] = len(tensors[f"{head}conv1.weight"])
    if form.masks:
        values |= {
            "MODEL.ROI_MASK_HEAD.NUM_CONV": form.masks,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": len(tensors[f"{masks}mask_fcn1.weight"]),
            "MODEL.ROI_MASK_HEAD.NORM": "BN" if "mask" in form.norms else "",
            **{f"MODEL.ROI_MASK_HEAD.{key}": value for key, value in pooling.items()},
        }
    return values


def _one_stage(tensors: Mapping[str, Tensor], form: names.Form, classes: int) -> dict[str, Any]:
    has_norms = "subnets" in form.norms
    return {
        "MODEL.FPN.P6_FROM_P5": tensors["backbone.top_block.p6.weight"].shape[1]
        == len(tensors["backbone.fpn_lateral5.weight"]),
        "MODEL.RETINANET.NUM_CLASSES": classes,
        "MODEL.RETINANET.NUM_CONVS": form.subnets,
        "MODEL.RETINANET.NORM": "GN" if has_norms else "",
        "MODEL.RETINANET.CLIP_BEFORE_NMS": True,
        # The second version, with norms, was trained so.
        "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": "giou" if has_norms else "smooth_l1",
        "TEST.DETECTIONS_PER_IMAGE": 300,
    }


def different(config: CfgNode) -> str | None:
    """Return what torchvision's detectors have not, in words."""
    model = config.MODEL
    name, table = architecture_of(config)
    one_stage = is_retinanet(config)
    tail = FPN_SUFFIX + (P6P7_SUFFIX if one_stage else "")
    stages = ("res2", "res3", "res4", "res5")[one_stage:]
    rules = (
        (one_stage or model.META_ARCHITECTURE == "GeneralizedRCNN", model.META_ARCHITECTURE),
        (
            hasattr(resnet, name) and name + tail == model.BACKBONE.NAME and model.BACKBONE.OUTPUT_STRIDE == 32,
            f"the network {model.BACKBONE.NAME} of this form",
        ),
        (model.BACKBONE.STEM == "conv7" and not model.BACKBONE.AVERAGE_DOWN, "the stem and shortcuts of ResNet-D"),
        (not model.BACKBONE.CEIL_POOL and model.BACKBONE.SHORTCUT in ("", "B"), "this pooling or these shortcuts"),
        (table.block != "bottleneck" or not model.RESNETS.STRIDE_IN_1X1, "a stride in the first 1x1 convolution"),
        (
            all(norm not in ("GN", "gn") for norm in (model.RESNETS.NORM, model.FPN.NORM, model.ROI_BOX_HEAD.NORM)),
            "GroupNorm in such a detector",
        ),
        (tuple(model.FPN.IN_FEATURES) == stages, "a pyramid on these stages"),
        ((model.FPN.OUT_CHANNELS, model.FPN.FUSE_TYPE) == (256, "sum"), "a pyramid of this form"),
        (
            model.ANCHOR_GENERATOR.NAME == ANCHORS,
            "anchors that are not rounded (MODEL.ANCHOR_GENERATOR.NAME TorchvisionAnchorGenerator has its own)",
        ),
        (
            not one_stage or model.RETINANET.CLIP_BEFORE_NMS,
            "boxes clipped behind NMS (MODEL.RETINANET.CLIP_BEFORE_NMS)",
        ),
        (config.INPUT.FORMAT in ("RGB", "BGR"), f"images of INPUT.FORMAT {config.INPUT.FORMAT}"),
        *(() if one_stage else _of_regions(config)),
    )
    return next((words for fits, words in rules if not fits), None)


def _of_regions(config: CfgNode) -> tuple[tuple[bool, str], ...]:
    model = config.MODEL
    heads = (model.ROI_BOX_HEAD, *([model.ROI_MASK_HEAD] * model.MASK_ON))
    return (
        (model.ROI_HEADS.NAME in ("StandardROIHeads", "RegionROIHeads"), f"the head {model.ROI_HEADS.NAME}"),
        (not model.ROI_BOX_HEAD.GLOBAL_CONTEXT, "global context"),
        (model.ROI_BOX_HEAD.CLASS_LOSS == "softmax", "a box head whose classes do not exclude each other"),
        (
            all(head.POOLER_TYPE == "ROIAlign" for head in heads),
            "RoIAlign moved by half a pixel (POOLER_TYPE ROIAlign is its own)",
        ),
    )

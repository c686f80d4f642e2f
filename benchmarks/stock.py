"""detectron2's own detectors, of its model zoo's configs, and ours of the same configs with the same weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from backbone import RunError
from backbone.networks.calibration import calibrate_frozen_bn
from backbone.weights.layouts.base import renamed
from backbone.weights.layouts.detectron2 import READ
from detection.config import default_config
from detection.modeling.backbone import network_of
from detection.modeling.build import build

# configs/Base-RCNN-C4.yaml and Base-RCNN-FPN.yaml of detectron2, where they differ from its defaults.
ZOO = {
    "c4": {"RPN.PRE_NMS_TOPK_TEST": 6000, "RPN.POST_NMS_TOPK_TEST": 1000},
    "fpn": {
        "BACKBONE.NAME": "build_resnet_fpn_backbone",
        "RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "RPN.PRE_NMS_TOPK_TRAIN": 2000,
        "RPN.PRE_NMS_TOPK_TEST": 1000,
        "RPN.POST_NMS_TOPK_TRAIN": 1000,
        "RPN.POST_NMS_TOPK_TEST": 1000,
        "ROI_HEADS.NAME": "StandardROIHeads",
        "ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "ROI_BOX_HEAD.NUM_FC": 2,
        "ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    },
}
# Of each loss and each column of the detections, relative: a tie of scores may let one other region be drawn.
TOLERANCE = 5e-3


@dataclass(frozen=True)
class Pair:
    """A detector of detectron2 and ours, with the same config and weights, on the device.

    Attributes:
        config: of ours; the optimizer's keys are detectron2's defaults.
    """

    stock: nn.Module
    ours: nn.Module
    config: CfgNode


def stock_config(name: str, device: str, regions: int | None = None) -> CfgNode:
    """Return detectron2's config of one of `suite.DETECTORS`.

    Args:
        regions: of an image that reach the second stage; where it is None detectron2's own, 512 in training and 1000
            in tests.
    """
    depth, kind = name.split("_")
    config = get_cfg()
    for key, value in ZOO[kind].items():
        config.merge_from_list([f"MODEL.{key}", value])
    config.MODEL.RESNETS.DEPTH = int(depth.removeprefix("r"))
    config.MODEL.DEVICE = device
    config.MODEL.WEIGHTS = ""
    # Every step the same: no rate, no change.
    config.SOLVER.BASE_LR = 0.0
    if regions is not None:
        config.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = regions
        config.MODEL.RPN.POST_NMS_TOPK_TEST = regions
    return config


def our_config(name: str, stock: CfgNode) -> CfgNode:
    """Return the same config with our network and heads."""
    depth, kind = name.split("_")
    config = default_config()
    config.merge_from_other_cfg(stock)
    network = depth.replace("r", "resnet")
    config.MODEL.BACKBONE.NAME = f"{network}_fpn" if kind == "fpn" else network
    if kind == "c4":
        config.MODEL.ROI_HEADS.NAME = "C4ROIHeads"
    return config


def make_pair(name: str, samples: list[dict[str, Any]], device: str, regions: int | None = None) -> Pair:
    """Build both detectors with the same random weights, in range and sure of some classes.

    Args:
        samples: of one training batch; frozen BN is calibrated on its images.
    """
    settings = stock_config(name, device, regions)
    config = our_config(name, settings)
    torch.manual_seed(0)
    ours = build(config)
    _settle(ours, samples)
    stock = build_model(settings)
    copy_weights(ours, stock)
    return Pair(stock, ours, config)


@torch.no_grad()
def _settle(model: nn.Module, samples: list[dict[str, Any]]) -> None:
    """Bring frozen BN into range, and spread the classes' scores, so that there are detections."""
    images = [model.preprocess_image([sample]).tensor for sample in samples]
    network = network_of(model)
    calibrate_frozen_bn(network, images)
    if hasattr(model.roi_heads, "res5"):
        calibrate_frozen_bn(model.roi_heads.res5, [network(image)["res4"] for image in images])
    layers = model.roi_heads.box_predictor
    seen: list[Tensor] = []
    hook = layers.cls_score.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()(samples[:1])
    hook.remove()
    length = seen[0].norm(dim=1).mean()
    layers.cls_score.weight.normal_(0, 2 / float(length))
    layers.bbox_pred.weight.normal_(0, 1 / float(length))


def copy_weights(ours: nn.Module, stock: nn.Module) -> None:
    """Copy every tensor of our detector into detectron2's; each has its counterpart."""
    state = ours.state_dict()
    stock.load_state_dict({name: state[our_name(name)] for name in stock.state_dict()})


def our_name(name: str) -> str:
    """Return our name of a tensor of detectron2's detectors."""
    if name.startswith("roi_heads.res5."):
        return "roi_heads." + _our_network_name(name.removeprefix("roi_heads.")).replace("layer4.", "res5.", 1)
    prefix = "backbone.bottom_up." if name.startswith("backbone.bottom_up.") else "backbone."
    if name.startswith(prefix):
        return prefix + _our_network_name(name.removeprefix(prefix))
    return name


def _our_network_name(name: str) -> str:
    return next(iter(renamed({name: None}, READ)))


def check_agreement(pair: Pair, samples: list[dict[str, Any]]) -> float:
    """Return how far losses and detections of both are apart in float64, relative to their size.

    Raises:
        RunError: further than TOLERANCE: they do not compute the same, and times would say nothing.
    """
    results = []
    for model in (pair.stock, pair.ours):
        precise = _precise(model)
        results.append((_losses(precise.train(), samples), _detections(precise.eval(), samples)))
    (losses, boxes), (our_losses, our_boxes) = results
    if boxes.shape != our_boxes.shape:
        raise RunError(f"{len(boxes)} detections of detectron2, {len(our_boxes)} of ours with the same weights")
    apart = max(_apart(our_losses, losses), _apart(our_boxes, boxes) if len(boxes) else 0.0)
    if not apart <= TOLERANCE:
        raise RunError(
            f"detectron2's and our detector are {apart:.1e} apart with the same weights, {TOLERANCE:.0e} is allowed: "
            f"losses {losses.tolist()} and {our_losses.tolist()}"
        )
    return apart


def _precise(model: nn.Module) -> nn.Module:
    """Return a copy in float64 whose scores and box deltas come out in float32, which NMS takes."""
    precise = copy.deepcopy(model).double()
    for head in (precise.proposal_generator.rpn_head, precise.roi_heads.box_predictor):
        head.register_forward_hook(lambda _module, _inputs, outputs: _as_float(outputs))
    return precise


def _as_float(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.float()
    return type(outputs)(_as_float(item) for item in outputs)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference; of rows (D, 6), relative to their column's largest value."""
    scale = other.abs() if other.ndim == 1 else other.abs().amax(0)
    return float(((one - other).abs() / scale.clamp(min=1e-6)).max())


def _losses(model: nn.Module, samples: list[dict[str, Any]]) -> Tensor:
    torch.manual_seed(0)
    with EventStorage(), torch.no_grad():
        losses = model(samples)
    return torch.stack([losses[name].double() for name in sorted(losses)])


def _detections(model: nn.Module, samples: list[dict[str, Any]]) -> Tensor:
    """Return boxes, scores and classes (D, 6) of all images."""
    with torch.inference_mode():
        found = [output["instances"] for output in model(samples)]
    rows = [
        torch.cat([item.pred_boxes.tensor, item.scores[:, None], item.pred_classes[:, None]], dim=1) for item in found
    ]
    return torch.cat(rows).double()

"""detectron2's own networks beside ours: the same config, the same weights."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

import detection
from backbone.engine.config import CONFIG_FOLDER

IMAGES = ShapeSpec(channels=3)


def config(name: str = "coco_faster_rcnn_r50_fpn.yaml", **changes: object) -> CfgNode:
    """Return a config of ours; `changes` have keys with __ for the dots."""
    overrides = [item for key, value in changes.items() for item in (key.replace("__", "."), value)]
    return detection.get_config(name, ["MODEL.DEVICE", "cpu", *overrides])


def changed(original: CfgNode, **changes: object) -> CfgNode:
    """Return a copy of a config with keys that `get_config` would refuse, such as detectron2's own backbones."""
    copy = original.clone()
    copy.defrost()
    for key, value in changes.items():
        copy.merge_from_list([key.replace("__", "."), value])
    copy.freeze()
    return copy


def build_backbone(original: CfgNode) -> Backbone:
    return BACKBONE_REGISTRY.get(original.MODEL.BACKBONE.NAME)(original, IMAGES)


def our_name(name: str) -> str:
    """Return our name of a tensor of detectron2's ResNet."""
    name = name.replace("stem.conv1.norm.", "bn1.").replace("stem.", "")
    return name_in_block(re.sub(r"\bres(\d)\.(\d+)\.", lambda match: f"layer{int(match[1]) - 1}.{match[2]}.", name))


def name_in_block(name: str) -> str:
    """Return our name of a tensor of detectron2's residual blocks, the names of stages left as they are."""
    name = re.sub(r"\.conv(\d)\.norm\.", r".bn\1.", name)
    return name.replace(".shortcut.norm.", ".downsample.1.").replace(".shortcut.", ".downsample.0.")


def copy_weights(ours: nn.Module, theirs: nn.Module, rename: Callable[[str], str] = our_name) -> None:
    """Copy the tensors of detectron2's network into ours; every one of either has its counterpart."""
    ours.load_state_dict({rename(name): value for name, value in theirs.state_dict().items()})


def relative_errors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return, by name, the largest difference over the largest value of theirs."""
    assert list(ours) == list(theirs)
    return {
        name: ((ours[name] - value).abs().max() / value.abs().max().clamp(min=1e-30)).item()
        for name, value in theirs.items()
    }


def detector_configs() -> list[str]:
    """Names of the shipped configs of detectors: the others are of pretraining and segmentation."""
    kinds = ("bccd", "coco", "finetune_*_rcnn", "finetune_retinanet", "imagenet_det", "mini", "voc")
    found = [path for kind in kinds for path in CONFIG_FOLDER.glob(f"{kind}_*.yaml")]
    return sorted(path.name for path in found if "_fcn_" not in path.name and "_deeplabv3_" not in path.name)

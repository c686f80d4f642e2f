"""A detector's config in detectron2's keys and in ours, in both directions."""

from __future__ import annotations

import logging
from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode, get_cfg

from backbone import ConfigError
from backbone.common.text import nearest
from backbone.engine import distributed
from backbone.engine.config import flat, get, put
from backbone.engine.loading import resolve_workers
from backbone.networks.architectures import ARCHITECTURES, Architecture

from .defaults import default_config
from .names import FPN_SUFFIX, NORM_NAMES, P6P7_SUFFIX, architecture_of, is_retinanet

ZOO_CONFIGS = Path(detectron2.__file__).parent / "model_zoo" / "configs"
BUILDERS = {
    "build_resnet_backbone": "",
    "build_resnet_fpn_backbone": FPN_SUFFIX,
    "build_retinanet_resnet_fpn_backbone": FPN_SUFFIX + P6P7_SUFFIX,
}
HEADS = {"Res5ROIHeads": "C4ROIHeads"}
# Sections that decide what the detector computes.
DECIDED = ("MODEL.", "INPUT.", "TEST.")
# Of our keys, what detectron2's networks and heads cannot be: the value that they stand for, and the words for others.
PLAIN = {
    "MODEL.BACKBONE.STEM": ("conv7", "the deep stem of ResNet-C and -D"),
    "MODEL.BACKBONE.AVERAGE_DOWN": (False, "the averaging shortcuts of ResNet-D"),
    "MODEL.BACKBONE.CEIL_POOL": (False, "pooling that rounds up"),
    "MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT": (False, "global context"),
    "MODEL.ROI_BOX_HEAD.CLASS_LOSS": ("softmax", "a box head whose classes do not exclude each other"),
    "MODEL.FPN.RELU_BEFORE_P7": (True, "a pyramid without a ReLU before P7"),
    "MODEL.RETINANET.CLIP_BEFORE_NMS": (False, "RetinaNet's boxes cut to the image before NMS"),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator", "anchors as torchvision's"),
    "MODEL.FPN.P6_FROM_P5": (False, "P6 on P5"),
    "MODEL.BACKBONE.NORM_EPS": (1e-5, "norms of another epsilon"),
}


def zoo_names() -> list[str]:
    """Return the names of the configs in detectron2's model zoo, without their suffix."""
    return sorted(file.relative_to(ZOO_CONFIGS).with_suffix("").as_posix() for file in ZOO_CONFIGS.rglob("*.yaml"))


def zoo_config(name: str) -> CfgNode:
    """Return detectron2's own config of its model zoo, such as COCO-Detection/faster_rcnn_R_50_FPN_3x.

    Raises:
        ConfigError: there is none of that name.
    """
    name = name.removesuffix(".yaml")
    known = zoo_names()
    if name not in known:
        raise ConfigError(f"detectron2's model zoo has no config {name!r}{nearest(name, known)}")
    config, warnings = get_cfg(), logging.getLogger("fvcore.common.config")
    # Some of these files hold expressions, which fvcore warns of; they are detectron2's own.
    before, warnings.disabled = warnings.disabled, True
    try:
        config.merge_from_file(str(ZOO_CONFIGS / f"{name}.yaml"))
    finally:
        warnings.disabled = before
    return config


def from_detectron2(theirs: CfgNode, source: str) -> CfgNode:
    """Return our config, unfrozen, of the detector that detectron2's config describes; the caller checks it.

    Raises:
        ConfigError: its backbone is none of ours.
    """
    config = default_config()
    usual = dict(flat(get_cfg()))
    for key, value in flat(theirs):
        # Where detectron2 leaves a choice of training alone, such as SEED -1, ours stays.
        if key.startswith(DECIDED) or value != usual[key]:
            put(config, key, value)
    config.INPUT.EXACT_RESIZE = True
    # What detectron2 checks and does at the end of its own trainings; detectors are tested as they are.
    for key in ("TEST.EXPECTED_RESULTS", "TEST.PRECISE_BN.ENABLED"):
        put(config, key, usual[key])
    config.MODEL.WEIGHTS, config.MODEL.DEVICE = "", default_config().MODEL.DEVICE
    take_network(config, source)
    if not is_retinanet(theirs):
        config.MODEL.ROI_HEADS.NAME = HEADS.get(theirs.MODEL.ROI_HEADS.NAME, theirs.MODEL.ROI_HEADS.NAME)
    return config


def take_network(config: CfgNode, source: str) -> None:
    """Set our name of the network that a config names by detectron2's builder and MODEL.RESNETS.

    Raises:
        ConfigError: none of ours is that network.
    """
    resnets, builder = config.MODEL.RESNETS, config.MODEL.BACKBONE.NAME
    form = (resnets.DEPTH, resnets.NUM_GROUPS, resnets.WIDTH_PER_GROUP)
    name = next((name for name, table in ARCHITECTURES.items() if _form(table) == form), None)
    if builder not in BUILDERS or name is None:
        raise ConfigError(
            f"{source}: no backbone here is {builder} of depth {form[0]}, {form[1]} groups of width {form[2]}"
        )
    config.MODEL.BACKBONE.NAME = name + BUILDERS[builder]
    if resnets.RES5_DILATION == 2:
        resnets.RES5_DILATION = 1
        config.MODEL.BACKBONE.OUTPUT_STRIDE, config.MODEL.BACKBONE.DILATION_STYLE = 16, "mmdetection"


def _form(table: Architecture) -> tuple[int, int, int] | None:
    is_resnet = table.family == "resnet" and table.stem == "conv7" and table.shortcut == "B"
    return (table.depth, table.groups, table.base_width) if is_resnet else None


def to_detectron2(config: CfgNode, source: str) -> tuple[CfgNode, list[str]]:
    """Return detectron2's own config of the detector that ours describes, and the keys that it has no place for.

    Raises:
        ConfigError: detectron2 has no such network or head.
    """
    name, table = architecture_of(config)
    model = config.MODEL
    if different := _different(config, name, table):
        raise ConfigError(f"{source}: detectron2 does not know {different}; nothing is written")
    theirs = get_cfg()
    for key in (key for key, _ in flat(theirs)):
        put(theirs, key, get(config, key))
    theirs.MODEL.WEIGHTS = ""
    if not is_retinanet(config):
        theirs.MODEL.ROI_HEADS.NAME = _heads(config)
    theirs.MODEL.BACKBONE.NAME = {tail: builder for builder, tail in BUILDERS.items()}[_tail(config, name)]
    theirs.MODEL.RESNETS.NORM = next(own for own, norm in NORM_NAMES.items() if norm == NORM_NAMES[model.RESNETS.NORM])
    if _is_dilated(config):
        theirs.MODEL.RESNETS.RES5_DILATION = 2
    fresh, own = dict(flat(default_config())), {key for key, _ in flat(theirs)}
    beside = [key for key, value in flat(config) if key not in own and key.startswith("TEST.") and value != fresh[key]]
    return theirs, beside


def _different(config: CfgNode, name: str, table: Architecture) -> str | None:
    """Return what detectron2 has not, in words."""
    own, heads = config.MODEL.BACKBONE, _heads(config)
    if _form(table) is None or _tail(config, name) not in BUILDERS.values() or own.SHORTCUT not in ("", "B"):
        return f"the network {own.NAME} of this form"
    if is_retinanet(config):
        heads = config.MODEL.META_ARCHITECTURE
    elif heads not in ("StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"):
        return f"the head {heads}"
    if heads == "Res5ROIHeads" and table.block != "bottleneck":
        return f"a C4 head on {name}, only on bottlenecks"
    if _is_dilated(config) and (own.OUTPUT_STRIDE, own.DILATION_STYLE) != (16, "mmdetection"):
        return "this dilation (its own is OUTPUT_STRIDE 16 with DILATION_STYLE mmdetection)"
    return next((words for key, (value, words) in PLAIN.items() if get(config, key) != value), None)


def _is_dilated(config: CfgNode) -> bool:
    return config.MODEL.BACKBONE.OUTPUT_STRIDE != 32 and "res5" in config.MODEL.RESNETS.OUT_FEATURES


def _tail(config: CfgNode, name: str) -> str:
    return config.MODEL.BACKBONE.NAME.removeprefix(name)


def _heads(config: CfgNode) -> str:
    own = {ours: theirs for theirs, ours in HEADS.items()} | {"RegionROIHeads": "StandardROIHeads"}
    return own.get(config.MODEL.ROI_HEADS.NAME, config.MODEL.ROI_HEADS.NAME)


def for_default_trainer(config: CfgNode) -> CfgNode:
    """Return a frozen config without the numbers that stand for others here, and that detectron2's own trainer fails
    on: DATALOADER.NUM_WORKERS -1 and SOLVER.CHECKPOINT_PERIOD 0.

    The cores are shared out to the processes that run, or will: detectron2 starts one for each GPU.
    """
    config.defrost()
    if config.DATALOADER.NUM_WORKERS < 0:
        gpus = torch.cuda.device_count() if config.MODEL.DEVICE == "cuda" else 1
        processes = distributed.world_size() if distributed.is_distributed() else gpus
        config.DATALOADER.NUM_WORKERS = resolve_workers(config.DATALOADER.NUM_WORKERS, processes)
    # The last checkpoint alone, in both trainers.
    config.SOLVER.CHECKPOINT_PERIOD = config.SOLVER.CHECKPOINT_PERIOD or max(1, config.SOLVER.MAX_ITER)
    config.freeze()
    return config

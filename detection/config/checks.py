"""Values of a config that are wrong: outside their choices, not used here, or against the backbone's name."""

from __future__ import annotations

from detectron2.config import CfgNode

from backbone import ConfigError, list_backbones
from backbone.engine.class_weights import check_class_weights
from backbone.engine.config import get
from backbone.engine.defaults import (
    IMAGES,
    SCHEDULES,
    SHARED_AT_MOST,
    SHARED_CHOICES,
    SHARED_NOT_NEGATIVE,
    SHARED_POSITIVE,
    SIDE,
    check_choices,
    check_numbers,
    check_pixels,
    check_steps,
)
from backbone.engine.record import LOSS
from backbone.networks.resnet import DILATION_STYLES, SHORTCUTS, STEMS

from ..evaluation import ENGINES
from .augmentation import check_augmentation
from .keys import choices_of
from .methods import check_methods, check_paper_rows, resolve_context_head
from .names import NORM_NAMES, TAILS, architecture_of, foreign_backbones, has_our_backbone, is_retinanet

AT_MOST = {
    **SHARED_AT_MOST,
    "MODEL.BACKBONE.CALIBRATION_IMAGES": 10_000,
    "MODEL.ROI_HEADS.NUM_CLASSES": IMAGES,
    "MODEL.RETINANET.NUM_CLASSES": IMAGES,
    **dict.fromkeys(("INPUT.MIN_SIZE_TEST", "TEST.MULTI_SCALE.SIDES", "TEST.AUG.MIN_SIZES"), SIDE),
    "TEST.PICTURES": 1000,
}
DERIVED = ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS")

# What TEST.LOSS gives, as metrics.jsonl has it.
VALIDATION_LOSS = f"validation/{LOSS}"
AREAS = ("APs", "APm", "APl")
# For TEST.BEST: figures, with the key that a run needs to have them.
FIGURES = {
    **dict.fromkeys(("bbox/AP", "bbox/AP50", "bbox/AP75", *(f"bbox/{area}" for area in AREAS)), ""),
    **dict.fromkeys(("segm/AP", "segm/AP50", "segm/AP75", *(f"segm/{area}" for area in AREAS)), "MODEL.MASK_ON"),
    **dict.fromkeys(("keypoints/AP", "keypoints/AP50", "keypoints/AP75"), "MODEL.KEYPOINT_ON"),
    VALIDATION_LOSS: "TEST.LOSS",
}
CHOICES = {
    **SHARED_CHOICES,
    "MODEL.RESNETS.NORM": tuple(NORM_NAMES),
    "MODEL.BACKBONE.FREEZE_AT": tuple(range(6)),
    "MODEL.BACKBONE.OUTPUT_STRIDE": (32, 16, 8),
    "MODEL.BACKBONE.DILATION_STYLE": DILATION_STYLES,
    "MODEL.BACKBONE.STEM": STEMS,
    "MODEL.BACKBONE.SHORTCUT": ("", *SHORTCUTS),
    "INPUT.RANDOM_FLIP": ("none", "horizontal", "vertical", "both"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "SOLVER.LR_SCHEDULER_NAME": SCHEDULES,
    "SOLVER.SCHEME": ("joint", "alternating"),
    "DATASETS.BAD_BOXES": ("auto", "refuse", "skip"),
    "TEST.SOFT_NMS.METHOD": ("gaussian", "linear"),
    "TEST.PRECISION": ("float32", "bfloat16", "float16"),
    "TEST.BEST": ("", *FIGURES),
    "MODEL.ROI_BOX_HEAD.CLASS_LOSS": ("softmax", "sigmoid", "focal"),
}
POSITIVE = (
    *SHARED_POSITIVE,
    *("INPUT.MAX_SIZE_TRAIN", "INPUT.MAX_SIZE_TEST", "TEST.AUG.MAX_SIZE"),
    *("MODEL.RETINANET.NUM_CLASSES", "MODEL.RETINANET.TOPK_CANDIDATES_TEST"),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "SOLVER.FAST_RCNN_IMAGES"),
    *(f"MODEL.RPN.{when}_NMS_TOPK_{split}" for when in ("PRE", "POST") for split in ("TRAIN", "TEST")),
)
NOT_NEGATIVE = (
    *SHARED_NOT_NEGATIVE,
    *("INPUT.MIN_SIZE_TEST", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
    *("MODEL.RETINANET.SCORE_THRESH_TEST", "MODEL.RETINANET.NUM_CONVS"),
    *("MODEL.BACKBONE.NORM_EPS", "MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST"),
    *("DATASETS.MAX_BAD_IMAGES", "DATALOADER.REPEAT_THRESHOLD", "TEST.SOFT_NMS.LEAST_SCORE", "TEST.PICTURES"),
    *("TEST.BATCH_SIZE", "MODEL.ROI_BOX_HEAD.FOCAL_GAMMA", "SOLVER.CLASS_BALANCE"),
)


def check_values(config: CfgNode, source: str) -> None:
    """Raise ConfigError for the first value outside its choices, with the nearest one that exists."""
    choices = {**CHOICES, **choices_of(config, source)}
    choices["TEST.EVAL_ENGINE"] = ["auto", *ENGINES]
    choices["MODEL.BACKBONE.NAME"] = [
        *(name + tail for name in list_backbones() for tail in TAILS),
        *foreign_backbones(),
    ]
    check_choices(config, choices, source)
    check_steps(config, source)
    check_pixels(config, source)
    numbers = {"positive": POSITIVE, "not_negative": NOT_NEGATIVE, "at_most": AT_MOST}
    check_numbers(config, source, **numbers)
    _check_sizes(config, source)
    _check_scheme(config, source)
    _check_last_stage(config, source)
    needed = FIGURES.get(config.TEST.BEST)
    if needed and not get(config, needed):
        raise ConfigError(f"{source}: TEST.BEST {config.TEST.BEST} needs {needed} True")
    heads = config.MODEL.ROI_HEADS.NAME
    if config.MODEL.KEYPOINT_ON and heads in ("C4ROIHeads", "Res5ROIHeads") and not is_retinanet(config):
        raise ConfigError(f"{source}: MODEL.KEYPOINT_ON is for heads on a pyramid, not {heads}")
    _check_torchvision(config, source)
    check_class_weights(config, source)
    alpha = config.MODEL.ROI_BOX_HEAD.FOCAL_ALPHA
    if not (0 <= alpha <= 1 or alpha == -1):
        raise ConfigError(f"{source}: MODEL.ROI_BOX_HEAD.FOCAL_ALPHA must be from 0 to 1, or -1, not {alpha}")
    check_augmentation(config, source)
    check_methods(config, source)
    check_paper_rows(config, source)


def _check_sizes(config: CfgNode, source: str) -> None:
    sizes = config.INPUT.MIN_SIZE_TRAIN
    if not sizes or min(sizes) < 0 or max(sizes) > SIDE:
        raise ConfigError(
            f"{source}: INPUT.MIN_SIZE_TRAIN must hold sizes in pixels, up to {SIDE:,} (0: as they are), not {sizes}"
        )
    if config.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and not (len(sizes) == 2 and 0 < sizes[0] <= sizes[1]):
        raise ConfigError(f"{source}: INPUT.MIN_SIZE_TRAIN of a range is its two ends in order, not {sizes}")


def _check_last_stage(config: CfgNode, source: str) -> None:
    """Refuse detectron2's conv5 on regions where the network's own is another; C4ROIHeads builds that of any."""
    if config.MODEL.ROI_HEADS.NAME != "Res5ROIHeads" or is_retinanet(config):
        return
    name, table = architecture_of(config)
    if getattr(table, "block", "") != "bottleneck" or config.MODEL.BACKBONE.AVERAGE_DOWN:
        raise ConfigError(
            f"{source}: MODEL.ROI_HEADS.NAME Res5ROIHeads has detectron2's last stage, that of {name} is another; "
            "C4ROIHeads has the network's own"
        )


def _check_torchvision(config: CfgNode, source: str) -> None:
    """Refuse what torchvision's detectors have, where another key leaves it without effect."""
    if config.INPUT.FLOAT_RESIZE and config.INPUT.EXACT_RESIZE:
        raise ConfigError(
            f"{source}: INPUT.FLOAT_RESIZE is torchvision's resizing, EXACT_RESIZE detectron2's; take one"
        )
    heads = config.MODEL.ROI_HEADS.NAME
    if config.MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST and heads in ("StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"):
        raise ConfigError(
            f"{source}: MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST has no effect on {heads}; RegionROIHeads obeys it"
        )
    anchors = config.MODEL.ANCHOR_GENERATOR
    if anchors.NAME == "TorchvisionAnchorGenerator" and anchors.OFFSET:
        raise ConfigError(f"{source}: MODEL.ANCHOR_GENERATOR.OFFSET of TorchvisionAnchorGenerator is 0")


def _check_scheme(config: CfgNode, source: str) -> None:
    parts = (config.MODEL.META_ARCHITECTURE, config.MODEL.PROPOSAL_GENERATOR.NAME)
    if config.SOLVER.SCHEME == "alternating" and parts != ("GeneralizedRCNN", "RPN"):
        raise ConfigError(
            f"{source}: SOLVER.SCHEME alternating trains an RPN and Fast R-CNN in turn, {parts[0]} with "
            f"{parts[1]} has not both; leave --scheme out"
        )


def _check_own_backbone(config: CfgNode, source: str) -> None:
    """Refuse what needs a network of ours, where the config has a user's own."""
    name, heads = config.MODEL.BACKBONE.NAME, config.MODEL.ROI_HEADS.NAME
    if heads == "C4ROIHeads" or config.MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT:
        what = f"MODEL.ROI_HEADS.NAME {heads}" if heads == "C4ROIHeads" else "MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT"
        raise ConfigError(f"{source}: {what} needs a network of this project, {name} is your own; use StandardROIHeads")


def derive_from_architecture(config: CfgNode, explicit: set[str], source: str) -> None:
    """Set the keys by which detectron2's own heads know the backbone (MODEL.RESNETS.DEPTH, ...) from its name.

    A user's own backbone may read these keys as it likes.

    Raises:
        ConfigError: one of them was given, and does not fit MODEL.BACKBONE.NAME; or the head has no global context.
    """
    if not has_our_backbone(config):
        _check_own_backbone(config, source)
        return
    name, table = architecture_of(config)
    derived = {
        "DEPTH": table.depth,
        "NUM_GROUPS": table.groups,
        "WIDTH_PER_GROUP": table.base_width,
        "RES2_OUT_CHANNELS": table.channels[0],
    }
    for key in DERIVED:
        value = config.MODEL.RESNETS[key]
        if f"MODEL.RESNETS.{key}" in explicit and value != derived[key]:
            raise ConfigError(
                f"{source}: MODEL.RESNETS.{key} is {value}, but MODEL.BACKBONE.NAME {name!r} has {derived[key]}; "
                "leave the key out, the name decides"
            )
        config.MODEL.RESNETS[key] = derived[key]
    resolve_context_head(config, source)

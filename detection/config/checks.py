"""Values of a config that are wrong: outside their choices, not used here, or against the backbone's name."""

from __future__ import annotations

from detectron2.config import CfgNode

from backbone import ConfigError, list_backbones
from backbone.engine.config import get
from backbone.engine.defaults import (
    SCHEDULES,
    SHARED_CHOICES,
    SHARED_NOT_NEGATIVE,
    SHARED_POSITIVE,
    check_choices,
    check_numbers,
)
from backbone.networks.resnet import DILATION_STYLES, STEMS

from ..evaluation import ENGINES
from ..modeling.backbone import NORM_NAMES, architecture_of
from .methods import check_methods, check_paper_rows, settle_context_head

DERIVED = ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS")

CHOICES = {
    **SHARED_CHOICES,
    "MODEL.RESNETS.NORM": tuple(NORM_NAMES),
    "MODEL.BACKBONE.FREEZE_AT": tuple(range(6)),
    "MODEL.BACKBONE.OUTPUT_STRIDE": (32, 16, 8),
    "MODEL.BACKBONE.DILATION_STYLE": DILATION_STYLES,
    "MODEL.BACKBONE.STEM": STEMS,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign", "ROIPool"),
    "INPUT.RANDOM_FLIP": ("none", "horizontal", "vertical"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "SOLVER.LR_SCHEDULER_NAME": SCHEDULES,
    "SOLVER.SCHEME": ("joint", "alternating"),
    "DATASETS.BAD_BOXES": ("auto", "refuse", "skip"),
    "TEST.SOFT_NMS.METHOD": ("gaussian", "linear"),
}
# Keys of detectron2 that nothing here reads, and what stands in for them. To change one in silence would mislead.
UNUSED = {
    "MODEL.RESNETS.RES5_DILATION": "MODEL.BACKBONE.OUTPUT_STRIDE 16 with MODEL.BACKBONE.DILATION_STYLE mmdetection "
    "dilates the last stage as detectron2 does",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "MODEL.BACKBONE.NAME decides",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": "deformable convolution is not supported",
    "MODEL.KEYPOINT_ON": "keypoint heads are not supported",
    "MODEL.LOAD_PROPOSALS": "proposals come from the RPN",
    "INPUT.CROP.ENABLED": "cropping is not supported",
    "TEST.PRECISE_BN.ENABLED": "not supported in detection; backbones bring their statistics",
    "SOLVER.REFERENCE_WORLD_SIZE": "SOLVER.REFERENCE_BATCH_SIZE scales the schedule",
}


def check_values(config: CfgNode, source: str) -> None:
    """Raise ConfigError for the first value outside its choices, with the nearest one that exists."""
    from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

    choices = dict(CHOICES)
    choices["MODEL.META_ARCHITECTURE"] = [name for name, _ in META_ARCH_REGISTRY]
    choices["MODEL.ROI_HEADS.NAME"] = [name for name, _ in ROI_HEADS_REGISTRY]
    choices["TEST.EVAL_ENGINE"] = ["auto", *ENGINES]
    choices["MODEL.BACKBONE.NAME"] = [name + tail for name in list_backbones() for tail in ("", "_fpn")]
    check_choices(config, choices, source)
    not_negative = (*SHARED_NOT_NEGATIVE, "TEST.SOFT_NMS.LEAST_SCORE")
    check_numbers(config, source, positive=SHARED_POSITIVE, not_negative=not_negative)
    sizes = config.INPUT.MIN_SIZE_TRAIN
    if not sizes or min(sizes) < 0:
        raise ConfigError(f"{source}: INPUT.MIN_SIZE_TRAIN must hold sizes in pixels (0: as they are), not {sizes}")
    _check_scheme(config, source)
    check_methods(config, source)
    check_paper_rows(config, source)


def _check_scheme(config: CfgNode, source: str) -> None:
    parts = (config.MODEL.META_ARCHITECTURE, config.MODEL.PROPOSAL_GENERATOR.NAME)
    if config.SOLVER.SCHEME == "alternating" and parts != ("GeneralizedRCNN", "RPN"):
        raise ConfigError(
            f"{source}: SOLVER.SCHEME alternating trains an RPN and Fast R-CNN in turn, {parts[0]} with "
            f"{parts[1]} has not both; leave --scheme out"
        )


def refuse_unused(config: CfgNode, defaults: CfgNode, source: str) -> None:
    """Raise ConfigError for a key of detectron2 that was changed though nothing here reads it."""
    for key, instead in UNUSED.items():
        if get(config, key) != get(defaults, key):
            raise ConfigError(f"{source}: {key} has no effect here; {instead}")


def derive_from_architecture(config: CfgNode, explicit: set[str], source: str) -> None:
    """Set the keys by which detectron2's own heads know the backbone (MODEL.RESNETS.DEPTH, ...) from its name.

    Raises:
        ConfigError: one of them was given, and does not fit MODEL.BACKBONE.NAME; or the head has no global context.
    """
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
    settle_context_head(config, source)

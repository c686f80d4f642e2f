"""Names in a config: of networks, with what stands on them, of norms, and of the kind of detector."""

from __future__ import annotations

from detectron2.config import CfgNode

from backbone import list_backbones
from backbone.networks import Architecture, find_architecture

FPN_SUFFIX, P6P7_SUFFIX = "_fpn", "_p6p7"
# What may stand behind the name of a network.
TAILS = ("", FPN_SUFFIX, FPN_SUFFIX + P6P7_SUFFIX)
RETINANET = "RetinaNet"
# detectron2's spelling of the norms, and ours.
NORM_NAMES = {
    "FrozenBN": "frozen_bn",
    "BN": "bn",
    "SyncBN": "sync_bn",
    "GN": "gn",
    "frozen_bn": "frozen_bn",
    "bn": "bn",
    "sync_bn": "sync_bn",
    "gn": "gn",
}


def foreign_backbones() -> list[str]:
    """Return the backbones in detectron2's registry that are neither ours nor detectron2's own: those of users."""
    from detectron2.modeling import BACKBONE_REGISTRY

    return [name for name, part in BACKBONE_REGISTRY if not part.__module__.startswith(("detectron2.", "detection."))]


def has_our_backbone(config: CfgNode) -> bool:
    """Whether the config's network is one of `backbone.list_backbones()`, and not a user's own."""
    return config.MODEL.BACKBONE.NAME in [name + tail for name in list_backbones() for tail in TAILS]


def architecture_of(config: CfgNode) -> tuple[str, Architecture]:
    """Return name and table entry of the config's network.

    Raises:
        ArchitectureError: it is none of ours; see `has_our_backbone`.
    """
    name = config.MODEL.BACKBONE.NAME.removesuffix(P6P7_SUFFIX).removesuffix(FPN_SUFFIX)
    return name, find_architecture(name)


def is_retinanet(config: CfgNode) -> bool:
    """Whether the config's detector has one stage: detectron2's RetinaNet, without an RPN and heads on regions."""
    return config.MODEL.META_ARCHITECTURE == RETINANET


def kind_of(config: CfgNode) -> str:
    """Return the kind of detector in words, such as Mask R-CNN."""
    if is_retinanet(config):
        return RETINANET
    parts = {
        "Cascade": config.MODEL.ROI_HEADS.NAME == "CascadeROIHeads",
        "Mask": config.MODEL.MASK_ON,
        "Keypoint": config.MODEL.KEYPOINT_ON,
    }
    return " ".join([part for part, on in parts.items() if on] or ["Faster"]) + " R-CNN"


def classes_key(config: CfgNode) -> str:
    """Return the key of the number of classes."""
    return "MODEL.RETINANET.NUM_CLASSES" if is_retinanet(config) else "MODEL.ROI_HEADS.NUM_CLASSES"

"""Names in a config: of networks, with what stands on them, and of norms."""

from __future__ import annotations

from detectron2.config import CfgNode

from backbone.networks import Architecture, find_architecture

FPN_SUFFIX, P6P7_SUFFIX = "_fpn", "_p6p7"
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


def architecture_of(config: CfgNode) -> tuple[str, Architecture]:
    """Return name and table entry of the config's network."""
    name = config.MODEL.BACKBONE.NAME.removesuffix(P6P7_SUFFIX).removesuffix(FPN_SUFFIX)
    return name, find_architecture(name)

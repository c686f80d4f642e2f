"""Keys of the methods of Appendix B, and of the rows of the paper, that do not fit or do not fit together."""

from __future__ import annotations

from detectron2.config import CfgNode

from backbone import ConfigError
from backbone.engine.config import get

from .names import RETINANET, is_retinanet

# Heads that know global context, and detectron2's that do not; ours stands in for its StandardROIHeads.
CONTEXT_HEADS = ("C4ROIHeads", "VGGROIHeads", "RegionROIHeads")
PLAIN_HEADS = ("StandardROIHeads", "Res5ROIHeads")
# Methods of testing (Appendix B of the paper, and what is usual today beside it): the key that turns each on, and those
# that say how. They change what a trained detector finds, and nothing of its training.
METHODS = {
    "TEST.BOX_REFINEMENT.ENABLED": ("TEST.BOX_REFINEMENT.NMS",),
    "TEST.BOX_VOTING.ENABLED": ("TEST.BOX_VOTING.IOU",),
    "TEST.MULTI_SCALE.ENABLED": ("TEST.MULTI_SCALE.SIDES",),
    "TEST.SOFT_NMS.ENABLED": ("TEST.SOFT_NMS.METHOD", "TEST.SOFT_NMS.SIGMA", "TEST.SOFT_NMS.LEAST_SCORE"),
    "TEST.AUG.ENABLED": ("TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE", "TEST.AUG.FLIP"),
    "TEST.FLIP": (),
    "TEST.ENSEMBLE": (),
}
METHOD_KEYS = tuple(key for switch, further in METHODS.items() for key in (switch, *further))
FRACTIONS = ("TEST.BOX_REFINEMENT.NMS", "TEST.BOX_VOTING.IOU", "TEST.SOFT_NMS.SIGMA")
FIGURES = ("a table", "a row", "the data", "a metric", "the paper's figure")


def methods_on(config: CfgNode) -> list[str]:
    """Return the keys of the methods of testing that are on."""
    return [key for key in METHODS if get(config, key)]


def check_methods(config: CfgNode, source: str) -> None:
    """Raise ConfigError for methods that the detector does not have, or that exclude each other."""
    test, head = config.TEST, config.MODEL.ROI_HEADS.NAME
    on = methods_on(config)
    if on and is_retinanet(config):
        raise ConfigError(f"{source}: {on[0]} is for detectors of two stages, not {RETINANET}; leave it out")
    if on and (config.MODEL.META_ARCHITECTURE != "GeneralizedRCNN" or head not in CONTEXT_HEADS + PLAIN_HEADS):
        detector = head if config.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" else config.MODEL.META_ARCHITECTURE
        raise ConfigError(f"{source}: {on[0]} is for heads {', '.join(CONTEXT_HEADS + PLAIN_HEADS)}, not {detector}")
    if test.MULTI_SCALE.ENABLED and test.AUG.ENABLED:
        raise ConfigError(f"{source}: TEST.MULTI_SCALE (maxout) and TEST.AUG (union) exclude each other; leave one out")
    if test.FLIP and test.AUG.ENABLED and test.AUG.FLIP:
        raise ConfigError(f"{source}: TEST.FLIP and TEST.AUG.FLIP both mirror the image; leave one out")
    for key in FRACTIONS:
        if not 0 < get(config, key) <= 1:
            raise ConfigError(f"{source}: {key} must be above 0 and at most 1, not {get(config, key)}")
    for key, least in (("TEST.MULTI_SCALE.SIDES", 2), ("TEST.AUG.MIN_SIZES", 1)):
        sides = get(config, key)
        if len(set(sides)) < least or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ConfigError(f"{source}: {key} must hold {least} or more shorter sides in pixels, not {sides}")
    if not all(isinstance(path, str) and path for path in test.ENSEMBLE):
        raise ConfigError(f"{source}: TEST.ENSEMBLE holds checkpoint files, such as ('b.pth',), not {test.ENSEMBLE}")


def resolve_context_head(config: CfgNode, source: str) -> None:
    """Take our form of detectron2's StandardROIHeads where global context is asked for.

    Raises:
        ConfigError: the config's head has no global context.
    """
    if not config.MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT:
        return
    if config.MODEL.ROI_HEADS.NAME == "StandardROIHeads":
        config.MODEL.ROI_HEADS.NAME = "RegionROIHeads"
    if config.MODEL.ROI_HEADS.NAME not in CONTEXT_HEADS:
        raise ConfigError(
            f"{source}: MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT is for heads {', '.join(CONTEXT_HEADS)}, "
            f"not {config.MODEL.ROI_HEADS.NAME}"
        )
    if config.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES:
        raise ConfigError(f"{source}: MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES does not go with GLOBAL_CONTEXT")


def check_paper_rows(config: CfgNode, source: str) -> None:
    """Raise ConfigError for an entry of PAPER.ROWS that is not [table, row, data, metric, figure]."""
    for row in config.PAPER.ROWS:
        kinds = (str, str, str, str, (int, float))
        if not isinstance(row, (list, tuple)) or len(row) != len(kinds) or not all(map(isinstance, row, kinds)):
            raise ConfigError(f"{source}: PAPER.ROWS holds [{', '.join(FIGURES)}], not {row!r}")

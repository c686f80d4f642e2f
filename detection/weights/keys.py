"""The keys of a detector's config that its weights decide."""

from __future__ import annotations

from detectron2.config import CfgNode

from backbone.engine.starting_weights import IMAGE_KEYS, WeightKeys
from backbone.networks import Architecture

from ..config.names import architecture_of, has_our_backbone

# Stands for a network of the user's own, of which the table knows nothing.
OWN = Architecture((1,), "basic", (64,), shortcut=None)


def _matters(config: CfgNode, key: str) -> bool:
    if key in IMAGE_KEYS:
        # Images that are not of three channels are the config's own: weights of three are adapted to them.
        return len(config.MODEL.PIXEL_MEAN) == 3
    # The user's own network reads none of these.
    return has_our_backbone(config) or not key.startswith(("MODEL.BACKBONE.", "MODEL.RESNETS."))


WEIGHT_KEYS = WeightKeys(
    flags={
        "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
        "average_down": "MODEL.BACKBONE.AVERAGE_DOWN",
        "ceil_pool": "MODEL.BACKBONE.CEIL_POOL",
        "shortcut": "MODEL.BACKBONE.SHORTCUT",
        "dilation_style": "MODEL.BACKBONE.DILATION_STYLE",
    },
    stem="MODEL.BACKBONE.STEM",
    architecture=lambda config: architecture_of(config)[1] if has_our_backbone(config) else OWN,
    matters=_matters,
    # Of the heads, what computes something else from the same tensors.
    whole=(
        "INPUT.FLOAT_RESIZE",
        "MODEL.BACKBONE.NORM_EPS",
        "MODEL.BACKBONE.SIZE_DIVISIBILITY",
        "MODEL.FPN.RELU_BEFORE_P7",
        "MODEL.RETINANET.CLIP_BEFORE_NMS",
        "MODEL.FPN.P6_FROM_P5",
        "MODEL.ANCHOR_GENERATOR.NAME",
        *(f"MODEL.ROI_{head}_HEAD.POOLER_{key}" for head in ("BOX", "MASK") for key in ("TYPE", "SAMPLING_RATIO")),
    ),
)

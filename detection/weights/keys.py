"""The keys of a detector's config that its weights decide."""

from __future__ import annotations

from detectron2.config import CfgNode

from backbone.engine.starting_weights import WeightKeys

from ..modeling.names import architecture_of


def _matters(config: CfgNode, key: str) -> bool:
    """Blocks of two 3x3 convolutions have no 1x1 for a stride."""
    return architecture_of(config)[1].block == "bottleneck" or key != "MODEL.RESNETS.STRIDE_IN_1X1"


WEIGHT_KEYS = WeightKeys(
    flags={
        "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
        "average_down": "MODEL.BACKBONE.AVERAGE_DOWN",
        "ceil_pool": "MODEL.BACKBONE.CEIL_POOL",
    },
    stem="MODEL.BACKBONE.STEM",
    matters=_matters,
)

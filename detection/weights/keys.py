"""The keys of a detector's config that its weights decide."""

from __future__ import annotations

from backbone.engine.starting_weights import IMAGE_KEYS, WeightKeys

from ..config.names import architecture_of

WEIGHT_KEYS = WeightKeys(
    flags={
        "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
        "average_down": "MODEL.BACKBONE.AVERAGE_DOWN",
        "ceil_pool": "MODEL.BACKBONE.CEIL_POOL",
        "shortcut": "MODEL.BACKBONE.SHORTCUT",
        "dilation_style": "MODEL.BACKBONE.DILATION_STYLE",
    },
    stem="MODEL.BACKBONE.STEM",
    architecture=lambda config: architecture_of(config)[1],
    # Images that are not of three channels are the config's own: weights of three are adapted to them.
    matters=lambda config, key: key not in IMAGE_KEYS or len(config.MODEL.PIXEL_MEAN) == 3,
    # Of the heads, what computes something else from the same tensors.
    whole=(
        "INPUT.FLOAT_RESIZE",
        "MODEL.BACKBONE.NORM_EPS",
        "MODEL.ANCHOR_GENERATOR.NAME",
        *(f"MODEL.ROI_{head}_HEAD.POOLER_{key}" for head in ("BOX", "MASK") for key in ("TYPE", "SAMPLING_RATIO")),
    ),
)

"""The global context beside the features of regions.

Global context (Appendix B of the paper): the whole image is one more region; pooled and put through the same layers,
its feature is concatenated with that of each region of the image. It is trained end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes
from torch import Tensor, nn


class ContextMixin:
    """Before one of detectron2's ROIHeads among a class's bases: sibling layers that take the global context too.

    Attributes:
        global_context: as MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT says.
    """

    @configurable
    def __init__(self, *, global_context: bool = False, **parts: Any) -> None:
        super().__init__(**parts)
        self.global_context = global_context

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super().from_config(cfg, input_shape)
        # detectron2's own configs have no such key.
        if cfg.MODEL.ROI_BOX_HEAD.get("GLOBAL_CONTEXT", False):
            parts["box_predictor"] = context_predictor(cfg, parts["box_predictor"])
            parts["global_context"] = True
        return parts


def context_predictor(config: CfgNode, plain: FastRCNNOutputLayers) -> FastRCNNOutputLayers:
    """Return sibling layers for features twice as long as `plain` takes: the region's and its image's."""
    return FastRCNNOutputLayers(config, ShapeSpec(channels=2 * plain.cls_score.in_features))


def whole_images(sizes: Sequence[tuple[int, int]], like: Tensor) -> list[Boxes]:
    """Return one box for each image of size (height, width), its padding left out, on the device of `like`."""
    return [Boxes(like.new_tensor([[0.0, 0.0, width, height]])) for height, width in sizes]


def append_context(regions: Tensor, context: Tensor, counts: Sequence[int]) -> Tensor:
    """Return (R, 2D): each region's feature (R, D), then its image's (N, D); `counts` are the regions of each image."""
    of_region = torch.repeat_interleave(context, torch.tensor(counts, device=context.device), dim=0)
    return torch.cat([regions, of_region], dim=1)


def with_context(
    head: nn.Module,
    features: dict[str, Tensor],
    regions: Tensor,
    boxes: Sequence[Boxes],
    sizes: Sequence[tuple[int, int]],
) -> Tensor:
    """Pool the whole images, of size (height, width), and append their features to those of their boxes."""
    context = head.region_features(features, whole_images(sizes, regions))
    return append_context(regions, context, [len(found) for found in boxes])

"""RetinaNet as other projects than detectron2 compute it."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import RetinaNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..config.names import is_retinanet


class ClippedRetinaNet(RetinaNet):
    """detectron2's RetinaNet with boxes cut to their image before NMS, not behind it: overlaps differ at the border."""

    def _decode_per_level_predictions(
        self, anchors: Boxes, pred_scores: Tensor, pred_deltas: Tensor, *limits: Any
    ) -> Instances:
        found = super()._decode_per_level_predictions(anchors, pred_scores, pred_deltas, *limits)
        found.pred_boxes.clip(found.image_size)
        return found[found.pred_boxes.nonempty()]


class PlainP6P7(LastLevelP6P7):
    """P7 from P6 as it is; detectron2 has a ReLU between them."""

    def forward(self, c5: Tensor) -> list[Tensor]:
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


def class_of(config: CfgNode) -> type[RetinaNet] | None:
    """Return the class of the config's detector, where it is not detectron2's."""
    clips = is_retinanet(config) and config.MODEL.RETINANET.get("CLIP_BEFORE_NMS", False)
    return ClippedRetinaNet if clips else None

"""RetinaNet as other projects than detectron2 compute it."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import RetinaNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from backbone.networks.norm import make_norm

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


def without_norm(config: CfgNode) -> CfgNode:
    """Return the config that detectron2 can build: its head of RetinaNet fails with GroupNorm, which `finish` adds."""
    if not is_retinanet(config) or config.MODEL.RETINANET.NORM != "GN":
        return config
    plain = config.clone()
    plain.defrost()
    plain.MODEL.RETINANET.NORM = ""
    return plain


def finish(model: nn.Module, config: CfgNode) -> None:
    """Give a RetinaNet its GroupNorm; convolutions before it have no bias, as in torchvision and MMDetection."""
    if not isinstance(model, RetinaNet) or config.MODEL.RETINANET.NORM != "GN":
        return
    for name in ("cls_subnet", "bbox_subnet"):
        layers: list[nn.Module] = []
        for layer in getattr(model.head, name):
            layers.append(layer)
            if isinstance(layer, nn.Conv2d):
                layers.append(make_norm("gn", layer.out_channels).to(layer.weight.device))
                layer.register_parameter("bias", None)
        setattr(model.head, name, nn.Sequential(*layers))

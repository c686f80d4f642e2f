"""Fast R-CNN heads whose per-region layers are fully connected: on a feature pyramid, and VGG-16's fc6 and fc7."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from backbone import ConfigError
from backbone.networks.vgg import FC_WIDTH, make_fc_layers

from .layers import Part, PooledLayers
from .regions import ContextMixin, with_context
from .waits import SparingHeads

FC6_SIDE = 7  # cells of the pooled region that fc6 takes


class RegionROIHeads(PooledLayers, ContextMixin, SparingHeads):
    """detectron2's StandardROIHeads, its tensors named alike, with global context where the config asks for it.

    With MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT the whole image is pooled as one more region, and the sibling layers see its
    feature beside each region's (Appendix B of the paper).
    """

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if not self.global_context:
            return super()._forward_box(features, proposals)
        boxes = [image.proposal_boxes for image in proposals]
        sizes = [image.image_size for image in proposals]
        regions = with_context(self, features, self.region_features(features, boxes), boxes, sizes)
        predictions = self.box_predictor(regions)
        if self.training:
            return self.box_predictor.losses(predictions, proposals)
        return self.box_predictor.inference(predictions, proposals)[0]


class VGGBoxHead(nn.Module):
    """fc6 and fc7 with dropout of 0.5 behind each, named `classifier.0` and `classifier.3` as in VGG's classifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classifier = make_fc_layers(channels)
        self.output_shape = ShapeSpec(channels=FC_WIDTH)

    def forward(self, pooled: Tensor) -> Tensor:
        """Turn pooled regions (R, channels, 7, 7) into features (R, 4096)."""
        return self.classifier(pooled.flatten(1))


class VGGROIHeads(RegionROIHeads):
    """The head of the paper's baseline, VGG-16 Faster R-CNN: RoI pooling on conv5_3, fc6 and fc7 on every region.

    Raises:
        ConfigError: more than one feature map, or another pooled size than the 7 x 7 of fc6.
    """

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        names, settings = cfg.MODEL.ROI_HEADS.IN_FEATURES, cfg.MODEL.ROI_BOX_HEAD
        if len(names) != 1:
            raise ConfigError(f"MODEL.ROI_HEADS.IN_FEATURES is {names}; VGGROIHeads pools from one map, [conv5]")
        if settings.POOLER_RESOLUTION != FC6_SIDE:
            raise ConfigError(
                f"MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION is {settings.POOLER_RESOLUTION}; fc6 of VGG-16 takes {FC6_SIDE}"
            )
        pooler = ROIPooler(
            output_size=FC6_SIDE,
            scales=(1.0 / input_shape[names[0]].stride,),
            sampling_ratio=settings.POOLER_SAMPLING_RATIO,
            pooler_type=settings.POOLER_TYPE,
        )
        box_head = VGGBoxHead(input_shape[names[0]].channels)
        return {
            "box_in_features": names,
            "box_pooler": pooler,
            "box_head": box_head,
            "box_predictor": FastRCNNOutputLayers(cfg, box_head.output_shape),
        }

    def pretrained_parts(self, tensors: Mapping[str, Tensor], last_stage: str) -> list[Part]:
        """Return fc6 and fc7, see `PooledLayers.pretrained_parts`."""
        own = self.box_head.state_dict()
        return [(self.box_head, {key: value for key, value in tensors.items() if key in own})]

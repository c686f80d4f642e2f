"""The paper's detector head: RoI pooling on conv4, then conv5 on each region ("Networks on Conv feature maps")."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from backbone.networks.initialise import initialise
from backbone.networks.resnet import make_stage, with_shortcut

from ..config.names import NORM_NAMES, architecture_of
from .layers import LastStageLayers, set_norm_eps
from .regions import ContextMixin, with_context
from .sampling import SparingSampling, foreground_of


class C4ROIHeads(SparingSampling, LastStageLayers, ContextMixin, Res5ROIHeads):
    """detectron2's Res5ROIHeads with our last stage: fused frozen BN, any depth, the backbone's stride placement.

    Appendix A of the paper: RoI pooling before conv5_1, conv5_x on every region in the role of VGG-16's fc layers,
    global average pooling, then the two sibling layers. The stage stands at `roi_heads.res5`, its blocks named as in
    the backbone's `layer4`. With MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT the whole image is pooled as one more region, and
    the sibling layers see its feature beside each region's (Appendix B).
    """

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        name, table = architecture_of(cfg)
        table = with_shortcut(name, table, cfg.MODEL.BACKBONE.get("SHORTCUT") or None)
        last = len(table.stages) - 1
        stage = make_stage(
            table,
            last,
            norm=NORM_NAMES[cfg.MODEL.RESNETS.NORM],
            stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
            average_down=cfg.MODEL.BACKBONE.AVERAGE_DOWN,
        )
        initialise(stage)
        set_norm_eps(stage, cfg)
        return stage, table.channels[last]

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See detectron2's ROIHeads.forward."""
        if not self.training and not self.global_context:
            return super().forward(images, features, proposals, targets)
        if self.training:
            proposals = self.label_and_sample_proposals(proposals, targets)
        boxes = [image.proposal_boxes for image in proposals]
        maps = self._shared_roi_transform([features[name] for name in self.in_features], boxes)
        regions = maps.mean(dim=[2, 3])
        if self.global_context:
            regions = with_context(self, features, regions, boxes, [image.image_size for image in proposals])
        predictions = self.box_predictor(regions)
        if self.training:
            losses = self.box_predictor.losses(predictions, proposals)
            return [], {**losses, **self._mask_losses(maps, proposals)}
        found, _ = self.box_predictor.inference(predictions, proposals)
        return self.forward_with_given_boxes(features, found), {}

    def _mask_losses(self, maps: Tensor, proposals: list[Instances]) -> dict[str, Tensor]:
        """Return the losses of the mask head on the foreground among the regions, whose conv5 maps are given."""
        if not self.mask_on:
            return {}
        foreground = foreground_of(proposals)
        parts = maps.split([len(image) for image in proposals])
        return self.mask_head(
            torch.cat([of_image[: len(some)] for of_image, some in zip(parts, foreground)]), foreground
        )

"""The paper's detector head: RoI pooling on conv4, then conv5 on each region ("Networks on Conv feature maps")."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from backbone.networks.initialise import initialise
from backbone.networks.resnet import make_stage

from .backbone import NORM_NAMES, architecture_of


class C4ROIHeads(Res5ROIHeads):
    """detectron2's Res5ROIHeads with our last stage: fused frozen BN, any depth, the backbone's stride placement.

    Appendix A of the paper: RoI pooling before conv5_1, conv5_x on every region in the role of VGG-16's fc layers,
    global average pooling, then the two sibling layers. The stage stands at `roi_heads.res5`, its blocks named as in
    the backbone's `layer4`.
    """

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        _, table = architecture_of(cfg)
        last = len(table.stages) - 1
        stage = make_stage(
            table,
            last,
            norm=NORM_NAMES[cfg.MODEL.RESNETS.NORM],
            stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
            average_down=cfg.MODEL.BACKBONE.AVERAGE_DOWN,
        )
        initialise(stage)
        return stage, table.channels[last]

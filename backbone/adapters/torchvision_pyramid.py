"""A network with torchvision's feature pyramid, as torchvision's detectors take their backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..common.errors import ArchitectureError
from ..common.text import nearest
from ..networks import Backbone, FeatureInfo, FoldedBackbone
from .inside import as_network, in_network_order, set_outputs

if TYPE_CHECKING:
    from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork

# Levels that each kind puts on top of the pyramid.
TOP_LEVELS = {"pool": ("pool",), "p6p7": ("p6", "p7"), "p6p7_from_stage": ("p6", "p7"), "none": ()}
ONE_STAGE_STRIDE = 8  # of the finest level in RetinaNet and FCOS (arXiv 1708.02002, Sec. 4; 1904.01355, Sec. 3)


class TorchvisionFPN(nn.Module):
    """What `torchvision_fpn` returns.

    `body` is the network, `fpn` torchvision's FeaturePyramidNetwork: the names of torchvision's own detectors, whose
    state dicts load as they are.

    Attributes:
        out_channels: channels of every level.
        feature_info: {level: FeatureInfo}, finest first; levels are "0", "1", ... and those on top.
    """

    def __init__(self, body: Backbone | FoldedBackbone, fpn: FeaturePyramidNetwork, levels_on_top: Sequence[str]):
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.out_channels: int = fpn.layer_blocks[-1][0].out_channels
        strides = [body.feature_info[stage].stride for stage in body.out_features]
        for _ in levels_on_top:
            strides.append(2 * strides[-1])
        names = [*map(str, range(len(body.out_features))), *levels_on_top]
        self.feature_info = {name: FeatureInfo(self.out_channels, stride) for name, stride in zip(names, strides)}

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the pyramid.

        Args:
            images: (N, 3, H, W), RGB, normalised with `image_statistics`.

        Returns:
            {level: (N, out_channels, H / stride, W / stride)}, finest first.
        """
        features = self.body(in_network_order(images, self.body))
        return self.fpn(OrderedDict((str(index), feature) for index, feature in enumerate(features.values())))


def torchvision_fpn(
    network: Backbone | FoldedBackbone | str,
    *,
    stages: Sequence[str] | None = None,
    top: str = "pool",
    out_channels: int = 256,
    norm_layer: Callable[..., nn.Module] | None = None,
    **keywords,
) -> TorchvisionFPN:
    """Make a backbone for torchvision's FasterRCNN, MaskRCNN, RetinaNet and FCOS.

    Pass `**backbone.adapters.image_statistics(...)` of it to the detector, so that images are normalised as the weights
    expect.

    Args:
        network: one of `backbone.create`, which is not copied and from then on gives `stages` alone; or a name.
        stages: under the pyramid, by default the network's outputs without stem and logits; with `top` P6 and P7, those
            of stride 8 and more.
        top: "pool", subsampling of the last level (Faster and Mask R-CNN); "p6p7", two convolutions on the last level
            (torchvision's RetinaNet and FCOS); "p6p7_from_stage", the same on the deepest stage (the RetinaNet paper,
            torchvision's v2, detectron2); or "none".
        out_channels: of every level.
        norm_layer: of the pyramid, such as nn.BatchNorm2d; by default none.
        keywords: of `backbone.create`, where `network` is a name.

    Raises:
        ArchitectureError: unknown network, stage, `top` or keyword.
    """
    if top not in TOP_LEVELS:
        raise ArchitectureError(
            f"top must be one of {', '.join(TOP_LEVELS)}, not {top!r}{nearest(str(top), TOP_LEVELS)}"
        )
    from torchvision.ops import FeaturePyramidNetwork

    body = as_network(network, stages, keywords)
    outputs = set_outputs(body, _default_stages(body, top) if stages is None else stages)
    channels = [body.feature_info[stage].channels for stage in outputs]
    fpn = FeaturePyramidNetwork(channels, out_channels, _top_block(top, channels[-1], out_channels), norm_layer)
    return TorchvisionFPN(body, fpn, TOP_LEVELS[top])


def _default_stages(body: Backbone | FoldedBackbone, top: str) -> list[str]:
    finest = ONE_STAGE_STRIDE if top.startswith("p6p7") else 1
    chosen = [stage for stage in body.out_features if stage not in ("stem", "logits")]
    return [stage for stage in chosen if body.feature_info[stage].stride >= finest]


def _top_block(top: str, stage_channels: int, out_channels: int) -> ExtraFPNBlock | None:
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

    if top == "none":
        return None
    if top == "pool":
        return LastLevelMaxPool()
    from_stage = top == "p6p7_from_stage"
    block = LastLevelP6P7(stage_channels if from_stage else out_channels, out_channels)
    # torchvision tells the two inputs apart by their channels, which may be the same.
    block.use_P5 = not from_stage
    return block

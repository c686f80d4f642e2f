"""Every network of `backbone` in detectron2's registry: by its name and, with a pyramid on it, name + `_fpn`, or
`_fpn_p6p7` with the two convolutions of RetinaNet on top.

They build from detectron2's own config too: keys that this project adds are read where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY, FPN, ROI_HEADS_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

import backbone
from backbone import ConfigError, list_backbones, network_class, networks
from backbone.networks import keywords_of

from ..config.names import FPN_SUFFIX, NORM_NAMES, P6P7_SUFFIX, architecture_of
from .layers import set_norm_eps
from .retinanet import PlainP6P7

# Keys of MODEL.BACKBONE that detectron2's config does not have, by keyword of `backbone.create`.
OWN_KEYS = {
    "output_stride": "OUTPUT_STRIDE",
    "dilation_style": "DILATION_STYLE",
    "stem": "STEM",
    "shortcut": "SHORTCUT",
    "average_down": "AVERAGE_DOWN",
    "ceil_pool": "CEIL_POOL",
    "checkpointing": "CHECKPOINTING",
}


class _Adapted:
    """What makes a network a detectron2 Backbone too. Parameter names stay the same."""

    _size_divisibility = 0

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # The loader's images are channels last in memory, and detectron2 leaves a single one so: it would decide the
        # layout of every feature, and with it their last bits. The weights' layout decides.
        return super().forward(images.contiguous())

    def output_shape(self) -> dict[str, ShapeSpec]:
        infos = {stage: self.feature_info[stage] for stage in self.out_features}
        return {stage: ShapeSpec(channels=info.channels, stride=info.stride) for stage, info in infos.items()}


# At the top of a module, where pickle and detectron2's LazyConfig find them by name.
class ResNet(_Adapted, networks.ResNet, Backbone):
    pass


class PreActResNet(_Adapted, networks.PreActResNet, Backbone):
    pass


class VGG(_Adapted, networks.VGG, Backbone):
    pass


def adapted_class(name: str) -> type[Backbone]:
    """Return the class of the network `name` that is a detectron2 Backbone too."""
    return {adapted.__bases__[1]: adapted for adapted in (ResNet, PreActResNet, VGG)}[network_class(name)]


def network_keywords(config: CfgNode) -> dict[str, object]:
    """Return the keywords of `backbone.create` that the config asks for."""
    resnets, own = config.MODEL.RESNETS, config.MODEL.BACKBONE
    if resnets.NORM not in NORM_NAMES:
        raise ConfigError(f"MODEL.RESNETS.NORM must be one of {', '.join(NORM_NAMES)}, not {resnets.NORM!r}")
    keywords = {
        "out_features": tuple(resnets.OUT_FEATURES),
        "norm": NORM_NAMES[resnets.NORM],
        "freeze_at": own.FREEZE_AT,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
        **{keyword: own[key] for keyword, key in OWN_KEYS.items() if key in own and own[key] != ""},
    }
    known = keywords_of(architecture_of(config)[0])
    return {key: value for key, value in keywords.items() if key in known}


def build_network(config: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build the config's network as a detectron2 backbone."""
    channels = len(config.MODEL.PIXEL_MEAN) if input_shape is None else input_shape.channels
    name, _ = architecture_of(config)
    network = adapted_class(name)(name, in_chans=channels, **network_keywords(config))
    set_norm_eps(network, config)
    return network


def network_of(model: nn.Module) -> backbone.Backbone:
    """Return our network inside a detector, below its feature pyramid if it has one."""
    return getattr(model.backbone, "bottom_up", model.backbone)


def build_fpn(config: CfgNode, input_shape: ShapeSpec | None = None) -> FPN:
    """Build the config's network with detectron2's feature pyramid on MODEL.FPN.IN_FEATURES."""
    bottom_up = build_network(config, input_shape)
    top_block = LastLevelMaxPool()
    # detectron2 takes p5 for granted; the deepest level may be another (no res5, or a dilated one).
    deepest = max(bottom_up.output_shape()[stage].stride for stage in config.MODEL.FPN.IN_FEATURES)
    top_block.in_feature = f"p{int(math.log2(deepest))}"
    return _pyramid(config, bottom_up, top_block)


def build_fpn_p6p7(config: CfgNode, input_shape: ShapeSpec | None = None) -> FPN:
    """Build the config's network with the pyramid of RetinaNet: P6 and P7 on the deepest of MODEL.FPN.IN_FEATURES."""
    bottom_up = build_network(config, input_shape)
    deepest = config.MODEL.FPN.IN_FEATURES[-1]
    channels = bottom_up.output_shape()[deepest].channels
    if config.MODEL.FPN.get("P6_FROM_P5", False):
        deepest = f"p{int(math.log2(bottom_up.output_shape()[deepest].stride))}"
        channels = config.MODEL.FPN.OUT_CHANNELS
    top = LastLevelP6P7 if config.MODEL.FPN.get("RELU_BEFORE_P7", True) else PlainP6P7
    return _pyramid(config, bottom_up, top(channels, config.MODEL.FPN.OUT_CHANNELS, in_feature=deepest))


def _pyramid(config: CfgNode, bottom_up: Backbone, top_block: nn.Module) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=config.MODEL.FPN.IN_FEATURES,
        out_channels=config.MODEL.FPN.OUT_CHANNELS,
        norm=config.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=config.MODEL.FPN.FUSE_TYPE,
    )


def _named(build: Callable[..., Backbone], name: str) -> Callable[..., Backbone]:
    """Return `build` under the name by which the registry will know it."""

    def builder(config: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
        built = build(config, input_shape)
        if multiple := config.MODEL.BACKBONE.get("SIZE_DIVISIBILITY", 0):
            built._size_divisibility = math.lcm(multiple, built.size_divisibility or 1)
        return built

    builder.__name__ = name
    return builder


def register_all() -> None:
    """Register networks and heads; what is registered already is left as it is."""
    from .anchors import TorchvisionAnchorGenerator
    from .c4 import C4ROIHeads
    from .fast_rcnn import RegionROIHeads, VGGROIHeads

    builders = {"": build_network, FPN_SUFFIX: build_fpn, FPN_SUFFIX + P6P7_SUFFIX: build_fpn_p6p7}
    for key, build in ((name + suffix, build) for name in list_backbones() for suffix, build in builders.items()):
        if key not in BACKBONE_REGISTRY:
            BACKBONE_REGISTRY.register(_named(build, key))
    for head in (C4ROIHeads, RegionROIHeads, VGGROIHeads):
        if head.__name__ not in ROI_HEADS_REGISTRY:
            ROI_HEADS_REGISTRY.register(head)
    if TorchvisionAnchorGenerator.__name__ not in ANCHOR_GENERATOR_REGISTRY:
        ANCHOR_GENERATOR_REGISTRY.register(TorchvisionAnchorGenerator)

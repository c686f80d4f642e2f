"""The same networks as other projects build them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from randomize import randomize
from torch import Tensor, nn

RESNETS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
CLASSES = 7


@dataclass(frozen=True)
class Peer:
    """A network of another project beside ours.

    Attributes:
        name: of our network.
        layout: under which the peer's state dict must be recognised, and written.
        build: makes the peer.
        outputs: the peer's features, or logits, for images.
        keywords: of our network.
        stages: of our network, in the order of `outputs`.
        read_as: the layout its names are recognised as, where another's are the same.
    """

    name: str
    layout: str
    build: Callable[[], nn.Module]
    outputs: Callable[[nn.Module, Tensor], list[Tensor]]
    keywords: dict[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ("logits",)
    read_as: str | None = None

    def __str__(self) -> str:
        return "-".join([self.layout, self.name, *(str(value) for value in self.keywords.values())])


def logits(peer: nn.Module, images: Tensor) -> list[Tensor]:
    return [peer(images)]


def from_torchvision(name: str) -> Peer:
    import torchvision

    return Peer(name, "torchvision", lambda: torchvision.models.get_model(name, num_classes=CLASSES), logits)


def from_timm(name: str, theirs: str, read_as: str | None = None, **keywords: Any) -> Peer:
    def build() -> nn.Module:
        import timm

        return timm.create_model(theirs, num_classes=CLASSES)

    return Peer(name, "timm", build, logits, keywords, read_as=read_as)


def from_detectron2(name: str, d2_norm: str = "BN", **keywords: Any) -> Peer:
    depth = int(name.removeprefix("resnet")) if name.startswith("resnet") else 50

    def build() -> nn.Module:
        from detection import compat

        compat.close_gaps()
        from detectron2.config import get_cfg
        from detectron2.layers import ShapeSpec
        from detectron2.modeling import build_resnet_backbone

        cfg = get_cfg()
        cfg.MODEL.RESNETS.DEPTH = depth
        cfg.MODEL.RESNETS.NORM = d2_norm
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = keywords.get("stride_in_1x1", False)
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        if depth < 50:
            cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        if name == "resnext50_32x4d":
            cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 32, 4
        return build_resnet_backbone(cfg, ShapeSpec(channels=3))

    return Peer(name, "detectron2", build, lambda peer, x: list(peer(x).values()), keywords, STAGES)


STAGES = ("res2", "res3", "res4", "res5")


def from_transformers(name: str, classifier: bool = True, **keywords: Any) -> Peer:
    kind, depths = RESNETS[name]

    def build() -> nn.Module:
        import transformers

        settings = {
            "depths": list(depths),
            "layer_type": kind,
            "hidden_sizes": [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048],
            "num_labels": CLASSES,
            "downsample_in_bottleneck": keywords.get("stride_in_1x1", False),
        }
        if "stem" in keywords:
            config = transformers.RTDetrResNetConfig(**settings, out_features=HF_STAGES)
            return transformers.RTDetrResNetBackbone(config)
        if classifier:
            return transformers.ResNetForImageClassification(transformers.ResNetConfig(**settings))
        return transformers.ResNetBackbone(transformers.ResNetConfig(**settings, out_features=HF_STAGES))

    def outputs(peer: nn.Module, images: Tensor) -> list[Tensor]:
        found = peer(images)
        return [found.logits] if hasattr(found, "logits") else list(found.feature_maps)

    with_classes = classifier and "stem" not in keywords
    return Peer(name, "huggingface", build, outputs, keywords, ("logits",) if with_classes else STAGES)


HF_STAGES = ["stage1", "stage2", "stage3", "stage4"]
D = {"stem": "deep", "average_down": True}

# Small enough to compare their outputs; the others, below, by names and shapes.
RUN = [
    from_torchvision("resnet18"),
    from_torchvision("resnet50"),
    from_torchvision("resnext50_32x4d"),
    from_timm("resnet18", "resnet18", "torchvision"),
    from_timm("resnet50", "resnet50d", **D),
    from_timm("resnet18", "resnet18d", **D),
    from_timm("resnet50", "resnet50c", "torchvision", stem="deep"),
    from_timm("preact_resnet18", "resnetv2_18"),
    from_timm("preact_resnet50", "resnetv2_50"),
    from_timm("preact_resnet50", "resnetv2_50d", **D),
    from_detectron2("resnet18"),
    from_detectron2("resnet50", "FrozenBN", stride_in_1x1=True, norm="frozen_bn"),
    from_detectron2("resnext50_32x4d", "FrozenBN"),
    from_detectron2("resnet50", "GN", norm="gn"),
    from_transformers("resnet18"),
    from_transformers("resnet50", stride_in_1x1=True),
    from_transformers("resnet50", classifier=False),
    from_transformers("resnet50", **D),
]
BY_NAMES = [
    *(from_torchvision(name) for name in ("resnet34", "resnet101", "resnet152")),
    *(from_torchvision(name) for name in ("wide_resnet50_2", "wide_resnet101_2")),
    *(from_torchvision(name) for name in ("resnext101_32x8d", "resnext101_64x4d", "vgg16", "vgg16_bn")),
    *(from_timm(name, name, "torchvision") for name in ("resnet34", "resnet50", "resnet101", "resnet152")),
    from_timm("resnet101", "resnet101d", **D),
    from_timm("resnet152", "resnet152d", **D),
    from_timm("wide_resnet50_2", "wide_resnet50_2", "torchvision"),
    from_timm("resnext50_32x4d", "resnext50_32x4d", "torchvision"),
    from_timm("preact_resnet34", "resnetv2_34"),
    from_timm("preact_resnet101", "resnetv2_101"),
    from_timm("preact_resnet152", "resnetv2_152"),
    from_timm("vgg16", "vgg16"),
    from_timm("vgg16_bn", "vgg16_bn"),
    from_detectron2("resnet34"),
    from_detectron2("resnet101"),
    from_detectron2("resnet152"),
    *(from_transformers(name) for name in ("resnet34", "resnet101", "resnet152")),
    from_transformers("resnet101", **D),
]


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def empty(build: Callable[[], nn.Module]) -> nn.Module:
    """A network without the time that initialising it takes: NaN wherever nothing is loaded."""
    network = on_meta(build).to_empty(device="cpu")
    network.eval()
    for value in network.state_dict().values():
        value.fill_(float("nan") if value.is_floating_point() else 0)
    return network


def filled(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network of random weights and statistics, in evaluation mode."""
    network = randomize(empty(build), seed)
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point() and value.isnan().any():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.5)
    return network


def same(a: nn.Module, b: nn.Module) -> None:
    """Check that every tensor of `b` equals that of `a`."""
    truth = a.state_dict()
    for name, value in without_counters(b.state_dict()).items():
        assert torch.equal(value, truth[name]), name


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}

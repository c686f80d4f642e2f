"""Our networks in detectron2's registry, against detectron2's own networks with the same weights."""

from __future__ import annotations

import pickle

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ROI_HEADS_REGISTRY, Backbone
from detectron2.modeling import build_backbone as build_by_detectron2
from detectron2.solver import build_optimizer
from omegaconf import OmegaConf
from peers import build_backbone, changed, config, copy_weights, our_name, relative_errors
from randomize import randomize
from torch import nn

import backbone
import detection
from backbone.networks import ARCHITECTURES, FrozenBatchNorm2d
from backbone.networks.norm import SyncBatchNorm2d
from detection.modeling.backbone import adapted_class
from detection.modeling.build import build

STAGES = ["stem", "res2", "res3", "res4", "res5"]
NAMES = backbone.list_backbones()
# What detectron2 can build too.
SHARED = [
    name
    for name, table in ARCHITECTURES.items()
    if (table.family, table.stem, table.shortcut) == ("resnet", "conv7", "B")
]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 97, 130, generator=torch.Generator().manual_seed(1))


def test_registering_twice_is_harmless():
    detection.register()
    before = dict(BACKBONE_REGISTRY), dict(ROI_HEADS_REGISTRY)
    detection.register()
    assert (dict(BACKBONE_REGISTRY), dict(ROI_HEADS_REGISTRY)) == before
    assert {name + tail for name in NAMES for tail in ("", "_fpn")} <= set(before[0])
    assert "C4ROIHeads" in before[1]
    # detectron2's own stay what they are.
    assert before[0]["build_resnet_backbone"].__module__ == "detectron2.modeling.backbone.resnet"


@pytest.mark.parametrize("name", NAMES)
def test_every_network_builds_through_detectron2(name):
    stages = list(ARCHITECTURES[name].stages)
    with torch.device("meta"):
        net = build_by_detectron2(config(MODEL__BACKBONE__NAME=name, MODEL__RESNETS__OUT_FEATURES=stages))
        plain = backbone.create(name, out_features=stages)
    assert isinstance(net, Backbone)
    shapes = {stage: (shape.channels, shape.stride) for stage, shape in net.output_shape().items()}
    assert shapes == {stage: (plain.feature_info[stage].channels, plain.feature_info[stage].stride) for stage in stages}


@pytest.mark.parametrize("name", SHARED)
def test_network_builds_like_detectron2s(name):
    settings = config(MODEL__BACKBONE__NAME=name, MODEL__RESNETS__OUT_FEATURES=STAGES)
    with torch.device("meta"):
        net = build_by_detectron2(settings)
        peer = build_backbone(changed(settings, MODEL__BACKBONE__NAME="build_resnet_backbone"))
    assert isinstance(net, Backbone)
    assert isinstance(net, backbone.Backbone)
    assert net.output_shape() == peer.output_shape()
    assert list(net.output_shape()) == STAGES
    assert net.size_divisibility == peer.size_divisibility == 0
    assert count(net, trained=True) == count(peer, trained=True)
    assert count(net, trained=False) == count(peer, trained=False)


def count(net: torch.nn.Module, *, trained: bool) -> int:
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad == trained)


def test_pyramid_on_vgg():
    stages = ["conv3", "conv4", "conv5"]
    settings = config(
        MODEL__BACKBONE__NAME="vgg16_fpn", MODEL__RESNETS__OUT_FEATURES=stages, MODEL__FPN__IN_FEATURES=stages
    )
    with torch.device("meta"):
        net = build_by_detectron2(settings)
    assert {level: shape.stride for level, shape in net.output_shape().items()} == {
        "p2": 4,
        "p3": 8,
        "p4": 16,
        "p5": 32,
    }


@pytest.mark.parametrize("name", SHARED)
def test_pyramid_builds_like_detectron2s(name):
    settings = config(MODEL__BACKBONE__NAME=f"{name}_fpn")
    with torch.device("meta"):
        net = build_by_detectron2(settings)
        peer = build_backbone(changed(settings, MODEL__BACKBONE__NAME="build_resnet_fpn_backbone"))
    assert isinstance(net, Backbone)
    assert isinstance(net.bottom_up, backbone.Backbone)
    assert net.output_shape() == peer.output_shape()
    assert {stage: shape.stride for stage, shape in net.output_shape().items()} == {
        "p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64
    }  # fmt: skip
    assert net.size_divisibility == peer.size_divisibility == 32
    assert count(net, trained=True) == count(peer, trained=True)


@pytest.mark.parametrize("wanted", [["res4"], ["res2", "res5"], ["res5", "res3"], ["stem"]])
@torch.no_grad()
def test_output_shape_tells_what_comes_out(wanted, images):
    net = build_backbone(config(MODEL__BACKBONE__NAME="resnet18", MODEL__RESNETS__OUT_FEATURES=wanted))
    features = net(images)
    assert features.keys() == net.output_shape().keys() == set(wanted)
    for stage, shape in net.output_shape().items():
        assert features[stage].shape == (2, shape.channels, *(-(-side // shape.stride) for side in images.shape[2:]))


@pytest.mark.parametrize(
    ("stages", "stride", "levels", "divisibility"),
    [
        (["res2", "res3", "res4"], 32, {"p2": 4, "p3": 8, "p4": 16, "p5": 32}, 16),
        (["res3", "res4", "res5"], 32, {"p3": 8, "p4": 16, "p5": 32, "p6": 64}, 32),
        (["res2", "res3", "res4"], 16, {"p2": 4, "p3": 8, "p4": 16, "p5": 32}, 16),
    ],
)
@torch.no_grad()
def test_pyramids_on_other_stages(stages, stride, levels, divisibility):
    settings = config(
        MODEL__BACKBONE__NAME="resnet18_fpn",
        MODEL__RESNETS__OUT_FEATURES=stages,
        MODEL__FPN__IN_FEATURES=stages,
        MODEL__FPN__OUT_CHANNELS=8,
        MODEL__BACKBONE__OUTPUT_STRIDE=stride,
    )
    net = build_backbone(settings)
    assert {level: shape.stride for level, shape in net.output_shape().items()} == levels
    assert net.size_divisibility == divisibility
    features = net(torch.zeros(1, 3, 64, 96))
    assert {level: tuple(feature.shape) for level, feature in features.items()} == {
        level: (1, 8, -(-64 // stride), -(-96 // stride)) for level, stride in levels.items()
    }


@pytest.mark.parametrize("depth", [50, 101])
@pytest.mark.parametrize("stride_in_1x1", [True, False])
@torch.no_grad()
def test_features_equal_detectron2(depth, stride_in_1x1, images):
    settings = config(
        MODEL__BACKBONE__NAME=f"resnet{depth}",
        MODEL__RESNETS__OUT_FEATURES=STAGES,
        MODEL__RESNETS__STRIDE_IN_1X1=stride_in_1x1,
    )
    assert_features_equal(settings, images)


@pytest.mark.parametrize(
    ("style", "stride_in_1x1"), [("mmdetection", False), ("mmdetection", True), ("torchvision", True)]
)
@torch.no_grad()
def test_dilated_features_equal_detectron2(style, stride_in_1x1, images):
    """detectron2 dilates all of res5; with the stride in the 1x1 the first 3x3 stands behind it in either style."""
    settings = config(
        MODEL__BACKBONE__NAME="resnet50",
        MODEL__BACKBONE__OUTPUT_STRIDE=16,
        MODEL__BACKBONE__DILATION_STYLE=style,
        MODEL__RESNETS__OUT_FEATURES=STAGES,
        MODEL__RESNETS__STRIDE_IN_1X1=stride_in_1x1,
    )
    net = assert_features_equal(changed(settings, MODEL__RESNETS__RES5_DILATION=2), images)
    assert net.output_shape()["res5"].stride == 16


def assert_features_equal(settings, images) -> Backbone:
    peer = randomize(build_backbone(changed(settings, MODEL__BACKBONE__NAME="build_resnet_backbone")))
    net = build_backbone(settings)
    copy_weights(net, peer)
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in net.modules()) > settings.MODEL.RESNETS.DEPTH
    assert max(relative_errors(net(images), peer(images)).values()) < 1e-5
    assert net.output_shape() == peer.output_shape()
    return net


@pytest.mark.parametrize("freeze_at", [0, 2])
def test_training_step_through_a_pyramid_equals_detectron2(freeze_at):
    """In float64, so that only a difference in what is computed can show."""
    settings = config(
        MODEL__BACKBONE__FREEZE_AT=freeze_at, MODEL__FPN__OUT_CHANNELS=16, SOLVER__BASE_LR=0.01, SOLVER__MOMENTUM=0.9
    )
    peer = randomize(build_backbone(changed(settings, MODEL__BACKBONE__NAME="build_resnet_fpn_backbone"))).double()
    net = build_backbone(settings).double()
    copy_weights(net, peer)
    images = torch.randn(1, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    for model in (net, peer):
        model.train()
        optimizer = build_optimizer(settings, model)
        sum(feature.square().mean() for feature in model(images).values()).backward()
        optimizer.step()
    ours = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    theirs = {our_name(name): parameter for name, parameter in peer.named_parameters() if parameter.requires_grad}
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name].grad, theirs[name].grad, rtol=1e-8, atol=1e-10), name
        assert torch.allclose(ours[name], theirs[name], rtol=1e-10, atol=1e-12), name
        assert ours[name].grad.abs().max() > 0, name
    assert not [
        name for name, parameter in net.named_parameters() if not parameter.requires_grad and parameter.grad is not None
    ]
    # Statistics and frozen weights are what they were.
    for name, value in peer.state_dict().items():
        if our_name(name) not in ours:
            assert torch.equal(net.state_dict()[our_name(name)], value), name


def test_networks_take_as_many_channels_as_the_pixels_have_numbers():
    settings = config(MODEL__BACKBONE__NAME="resnet18")
    assert BACKBONE_REGISTRY.get("resnet18")(settings, ShapeSpec(channels=1)).in_chans == 1


@pytest.mark.parametrize(("name", "norm"), [("BN", "BatchNorm2d"), ("SyncBN", "SyncBatchNorm2d"), ("GN", "GroupNorm")])
def test_norms_by_detectron2_names(name, norm):
    settings = config(MODEL__BACKBONE__NAME="resnet18", MODEL__RESNETS__NORM=name, MODEL__BACKBONE__FREEZE_AT=0)
    assert type(build_backbone(settings).bn1).__name__ == norm


def test_synchronised_norms_of_pyramid_and_heads_run_on_cpus():
    """Torch's own is refused by DistributedDataParallel there."""
    keys = ["MODEL.DEVICE", "cpu", "MODEL.FPN.NORM", "SyncBN", "MODEL.ROI_BOX_HEAD.NUM_CONV", 1]
    keys += ["MODEL.ROI_BOX_HEAD.NORM", "SyncBN"]
    model = build(detection.get_config("mini_faster_rcnn_r18.yaml", keys))
    kinds = [type(module) for module in model.modules()]
    assert nn.SyncBatchNorm not in kinds and kinds.count(SyncBatchNorm2d) == 7


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "vgg16"])
def test_networks_for_detectron2_are_pickled_and_named_in_a_lazy_config(name, tmp_path):
    adapted = adapted_class(name)
    net = adapted(name, out_features=(backbone.create(name).stage_names[0],))
    assert type(pickle.loads(pickle.dumps(net))) is adapted
    path = str(tmp_path / "a.yaml")
    written = OmegaConf.create({"model": LazyCall(adapted)(name=name)}, flags={"allow_objects": True})
    LazyConfig.save(written, path)
    assert type(instantiate(LazyConfig.load(path).model)) is adapted

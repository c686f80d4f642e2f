"""ResNets against torchvision's, the paper's MAC counts, and the contract."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis
from randomize import randomize, relative_error
from torch import nn

import backbone
from backbone.networks import find_architecture
from backbone.weights import LAYOUTS

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
STAGES = ("stem", "res2", "res3", "res4", "res5")

# Parameters of the 1000-class networks, as torchvision and the paper's layer table give them.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
# Multiply-adds at 224 x 224 in units of 1e9, the computed columns of the paper's Table 1: (stride in 1x1, in 3x3).
MACS = {"resnet50": (3.858, 4.089), "resnet101": (7.570, 7.801), "resnet152": (11.282, 11.514)}


def torchvision_features(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    features = {"stem": network.maxpool(network.relu(network.bn1(network.conv1(images))))}
    for index, (before, stage) in enumerate(zip(STAGES, STAGES[1:])):
        features[stage] = getattr(network, f"layer{index + 1}")(features[before])
    return features


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 97, 130, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_features_equal_torchvision(name, images):
    peer = randomize(getattr(torchvision.models, name)()).eval()
    expected = torchvision_features(peer, images)
    net = backbone.create(name, out_features=STAGES).eval()
    state = {key: value for key, value in peer.state_dict().items() if not key.startswith("fc.")}
    net.load_state_dict(state)
    features = net(images)
    assert list(features) == list(STAGES)
    for stage in STAGES:
        assert torch.equal(features[stage], expected[stage]), stage

    frozen = backbone.create(name, out_features=STAGES, norm="frozen_bn")
    frozen.load_state_dict(state)
    for stage, feature in frozen(images).items():
        assert relative_error(feature, expected[stage]) < 1e-5, stage


@pytest.mark.parametrize("name", NAMES)
def test_classifier_equals_torchvision_and_counts(name):
    peer = randomize(getattr(torchvision.models, name)()).eval()
    net = backbone.create(name, num_classes=1000).eval()
    net.load_state_dict(peer.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net(image)["logits"], peer(image))
    assert sum(parameter.numel() for parameter in net.parameters()) == PARAMETERS[name]
    assert find_architecture(name).depth == int(name.removeprefix("resnet"))


@pytest.mark.parametrize("name", MACS)
@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_macs_equal_the_computed_columns(name, stride_in_1x1):
    net = backbone.create(name, num_classes=1000, out_features=["logits"], stride_in_1x1=stride_in_1x1).eval()
    counter = FlopCountAnalysis(net, torch.zeros(1, 3, 224, 224)).unsupported_ops_warnings(False)
    # The paper's table counts convolutions and the fully connected layer alone.
    macs = counter.by_operator()["conv"] + counter.by_operator()["linear"]
    assert round(macs / 1e9, 3) == MACS[name][0 if stride_in_1x1 else 1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 31)])
def test_feature_info_tells_channels_and_strides(name, size):
    net = backbone.create(name, out_features=STAGES).eval()
    with torch.no_grad():
        features = net(torch.zeros(1, 3, *size))
    for stage, feature in features.items():
        info = net.feature_info[stage]
        assert feature.shape == (1, info.channels, *(-(-side // info.stride) for side in size))


@pytest.mark.parametrize("wanted", [("res5",), ("stem",), ("res4", "res2"), ("stem", "res3", "res5"), ("res4",)])
def test_any_subset_of_stages(wanted):
    net = backbone.create("resnet18", out_features=wanted)
    with torch.no_grad():
        features = net(torch.zeros(1, 3, 64, 64))
    assert set(features) == set(wanted)
    assert list(features) == [stage for stage in STAGES if stage in wanted]
    # Nothing deeper than the deepest output is built.
    assert hasattr(net, "layer4") == ("res5" in wanted)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("output_stride", [16, 8])
@torch.no_grad()
def test_dilation_computes_the_strided_network_densely(name, stride_in_1x1, output_stride):
    """The a-trous property: every `factor`-th value of the dilated map is the strided network's value."""
    keywords = {"stride_in_1x1": stride_in_1x1, "out_features": ("res4", "res5"), "norm": "frozen_bn"}
    strided = randomize(backbone.create(name, **keywords)).double()
    dilated = backbone.create(name, output_stride=output_stride, **keywords).double()
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 128, 128, dtype=torch.double)
    features = dilated(image)
    for stage, expected in strided(image).items():
        stride = min(output_stride, strided.feature_info[stage].stride)
        assert dilated.feature_info[stage].stride == stride
        factor = strided.feature_info[stage].stride // stride
        assert relative_error(features[stage][:, :, ::factor, ::factor], expected) < 1e-10


def test_dilation_equals_torchvision():
    peer = randomize(torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])).eval()
    net = backbone.create("resnet50", output_stride=8, num_classes=1000).eval()
    net.load_state_dict(peer.state_dict())
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(net(image)["logits"], peer(image))


@pytest.mark.parametrize("name", ["resnet18d", "resnet50d"])
@pytest.mark.parametrize("output_stride", [16, 8])
@torch.no_grad()
def test_dilated_resnet_d_equals_timm(name, output_stride, images):
    peer = randomize(timm.create_model(name, output_stride=output_stride)).eval()
    keywords = {"stem": "deep", "average_down": True, "output_stride": output_stride}
    net = backbone.create(name.removesuffix("d"), num_classes=1000, **keywords).eval()
    net.load_state_dict(LAYOUTS["timm"].to_ours(peer.state_dict(), {}))
    assert relative_error(net(images)["logits"], peer(images)) < 1e-6


def dilated_as_mmdetection(network: nn.Module, stages: dict[str, int]) -> nn.Module:
    """Dilate torchvision's network as MMDetection's: the 3x3 of every bottleneck, the first of other blocks."""
    for stage, dilation in stages.items():
        for conv in [module for module in network.get_submodule(stage).modules() if isinstance(module, nn.Conv2d)]:
            conv.stride = (1, 1)
        for block in network.get_submodule(stage):
            conv = block.conv2 if hasattr(block, "conv3") else block.conv1
            conv.dilation = conv.padding = (dilation, dilation)
    return network


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize(("output_stride", "stages"), [(16, {"layer4": 2}), (8, {"layer3": 2, "layer4": 4})])
@torch.no_grad()
def test_dilation_style_of_mmdetection(name, output_stride, stages, images):
    peer = dilated_as_mmdetection(randomize(getattr(torchvision.models, name)()).eval(), stages)
    keywords = {"output_stride": output_stride, "num_classes": 1000}
    net = backbone.create(name, dilation_style="mmdetection", **keywords).eval()
    other = backbone.create(name, **keywords).eval()
    for network in (net, other):
        network.load_state_dict(peer.state_dict())
    assert torch.equal(net(images)["logits"], peer(images))
    assert relative_error(other(images)["logits"], peer(images)) > 1e-3


@torch.no_grad()
def test_mmdetection_does_not_average_where_no_stride_is(images):
    """Its pooling has the stride as its side: 1 x 1 in a dilated stage."""
    keywords = {"average_down": True, "norm": "frozen_bn"}
    net = randomize(backbone.create("resnet50", output_stride=16, dilation_style="mmdetection", **keywords))
    peer = backbone.create("resnet50", **keywords)
    peer.load_state_dict(net.state_dict())
    dilated_as_mmdetection(peer, {"layer4": 2}).layer4[0].downsample.pool_stride = None
    assert torch.equal(net(images)["res5"], peer(images)["res5"])


@pytest.mark.parametrize(
    ("name", "norm"), [("resnet18", "bn"), ("resnet18", "sync_bn"), ("resnet18", "gn"), ("vgg16_bn", "bn")]
)
def test_checkpointing_changes_no_gradient_and_no_statistics(name, norm):
    gradients, states = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = randomize(backbone.create(name, norm=norm, freeze_at=1, checkpointing=checkpointing)).train()
        for step in range(2):
            image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(step))
            sum(feature.square().mean() for feature in net(image).values()).backward()
        gradients.append([parameter.grad for parameter in net.parameters() if parameter.requires_grad])
        states.append(net.state_dict())
    for plain, recomputed in zip(*gradients):
        assert torch.allclose(plain, recomputed, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"name": "resnet51"}, "did you mean 'resnet5"),
        ({"name": "resnet50", "freez_at": 2}, "did you mean 'freeze_at'"),
        ({"name": "resnet50", "freeze_at": 6}, "0 to 5"),
        ({"name": "resnet50", "norm": "batch"}, "frozen_bn"),
        ({"name": "resnet50", "output_stride": 4}, "32, 16, 8"),
        ({"name": "resnet50", "dilation_style": "timm"}, "torchvision, mmdetection"),
        ({"name": "resnet50", "out_features": ["res6"]}, "res5"),
        ({"name": "resnet50", "out_features": []}, "res5"),
        ({"name": "resnet50", "out_features": ["logits"]}, "num_classes"),
        ({"name": "resnet50", "num_classes": 0}, "at least 1"),
    ],
)
def test_mistakes_are_named(keywords, words):
    with pytest.raises(backbone.ArchitectureError, match=words):
        backbone.create(**keywords)


def test_list_backbones():
    assert set(NAMES) <= set(backbone.list_backbones())
    assert backbone.list_backbones() == sorted(backbone.list_backbones())

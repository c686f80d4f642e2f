"""The inference copy computes what the network computes."""

from __future__ import annotations

import pytest
import torch
from randomize import randomize, relative_error
from torch import nn

import backbone
from backbone.networks import ARCHITECTURES
from backbone.networks.conv_norm import FoldedConv

# The widest and deepest bring no other kind of block.
LEFT_OUT = ("cifar_resnet1202", "cifar_preact_resnet1001", "wide_resnet101_2", "resnext101_64x4d", "preact_resnet200")
NAMES = [name for name in ARCHITECTURES if name not in LEFT_OUT]
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, backbone.FrozenBatchNorm2d)


def stages(name: str) -> list[str]:
    table = ARCHITECTURES[name]
    return [*([] if table.family == "vgg" else ["stem"]), *table.stages]


def network(name: str, **keywords) -> backbone.Backbone:
    return randomize(backbone.create(name, out_features=stages(name), **keywords)).eval()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_network(name):
    net = network(name)
    x = torch.randn(2, 3, 48, 40)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    expected = net(x)
    folded = backbone.fold(net)
    for _ in range(2):  # a second run would show it if the first had written over a weight
        features = folded(x)
        assert list(features) == list(expected)
        for stage, feature in features.items():
            assert relative_error(feature, expected[stage]) < 1e-5, stage
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    if ARCHITECTURES[name].family == "resnet":
        assert not any(isinstance(module, NORMS) for module in folded.modules())
    assert any(isinstance(module, FoldedConv) for module in folded.modules())
    assert (folded.architecture, folded.out_features) == (name, net.out_features)
    assert folded.feature_info == net.feature_info


@pytest.mark.parametrize(
    "keywords",
    [
        {"norm": "frozen_bn", "freeze_at": 2},
        {"norm": "gn"},
        {"norm": "sync_bn"},
        {"stem": "deep", "average_down": True},
        {"shortcut": "A"},
        {"shortcut": "C"},
        {"output_stride": 8},
        {"num_classes": 10},
    ],
    ids=str,
)
@torch.no_grad()
def test_every_kind_of_norm_and_block(keywords):
    net = network("resnet18", **keywords)
    x = torch.randn(1, 3, 64, 48)
    folded = backbone.fold(net)
    for stage, feature in net(x).items():
        assert relative_error(folded(x)[stage], feature) < 1e-5


@torch.no_grad()
def test_returned_stages_are_not_written_over():
    """The addition runs in place; a stage that is returned must stay what it was."""
    net = network("resnet18")
    folded = backbone.fold(net)
    x = torch.randn(1, 3, 64, 64)
    alone = backbone.create("resnet18", out_features=["stem"]).eval()
    alone.load_state_dict({key: value for key, value in net.state_dict().items() if key in alone.state_dict()})
    assert relative_error(folded(x)["stem"], alone(x)["stem"]) < 1e-5


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_and_layout(dtype, channels_last):
    net = network("resnet50", norm="frozen_bn")
    folded = backbone.fold(net, dtype=dtype, channels_last=channels_last)
    x = torch.randn(1, 3, 64, 96)
    features = folded(x)
    with torch.no_grad():
        expected = net(x)
    for stage, feature in features.items():
        assert feature.dtype == dtype
        assert not feature.requires_grad
        assert relative_error(feature.float(), expected[stage]) < (1e-5 if dtype == torch.float32 else 0.05)


def test_unknown_dtype():
    with pytest.raises(backbone.ArchitectureError, match="bfloat16"):
        backbone.fold(network("resnet18"), dtype=torch.int8)


@pytest.mark.slow
@torch.no_grad()
def test_compiled():
    net = network("resnet18")
    x = torch.randn(1, 3, 64, 96)
    folded = backbone.fold(net, compile=True)
    for stage, feature in net(x).items():
        assert relative_error(folded(x)[stage], feature) < 1e-5


def test_a_folded_network_can_be_traced():
    net = network("resnet18")
    x = torch.randn(1, 3, 64, 96)
    folded = backbone.fold(net)
    traced = torch.export.export(folded.network, (x,)).module()
    with torch.no_grad():
        for stage, feature in net(x).items():
            assert relative_error(traced(x)[stage], feature) < 1e-5


@pytest.mark.parametrize("settings", [{"affine": False}, {"track_running_stats": False}])
def test_norms_without_affine_terms_or_statistics(settings):
    """The second kind normalises by the batch in evaluation too, and stays."""
    net = randomize(backbone.create("resnet18", out_features=("stem",))).eval()
    net.bn1 = nn.BatchNorm2d(64, **settings).eval()
    images = torch.randn(2, 3, 33, 40)
    folded = backbone.fold(net)
    with torch.no_grad():
        assert relative_error(folded(images)["stem"], net(images)["stem"]) < 1e-5

"""The inference copy computes what the network computes."""

from __future__ import annotations

import copy

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


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
@torch.no_grad()
def test_an_output_that_a_hook_keeps_is_not_written_over(name):
    folded, kept = backbone.fold(network(name)), []
    for module in folded.network.children():
        for inner in module.modules():
            inner.register_forward_hook(lambda _module, _inputs, output: kept.append((output, output.clone())))
    folded(torch.randn(1, 3, 32, 32))
    assert len(kept) > 30
    assert all(torch.equal(*pair) for pair in kept)


@torch.no_grad()
def test_the_copy_keeps_the_contract_and_can_be_saved(tmp_path):
    net = network("resnet18", freeze_at=2)
    net.preprocessing = backbone.Preprocessing("BGR", 255, (1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    folded, x = backbone.fold(nn.DataParallel(net)), torch.randn(1, 3, 32, 32)
    for name in ("preprocessing", "stage_names", "size_divisibility", "freeze_at", "feature_info", "out_features"):
        assert getattr(folded, name) == getattr(net, name), name
    torch.save(folded, tmp_path / "folded.pth")
    again = torch.load(tmp_path / "folded.pth", weights_only=False)
    for copied in (again, copy.deepcopy(folded)):
        assert all(torch.equal(value, folded(x)[stage]) for stage, value in copied(x).items())
    folded.out_features = ("res3",)
    assert list(folded(x)) == ["res3"]


@torch.no_grad()
def test_replaced_layers_stay():
    net = network("resnet18")
    net.layer1[0].conv1 = nn.Sequential(net.layer1[0].conv1, nn.Tanh())
    net.layer2[0].conv1.padding_mode = "circular"
    x = torch.randn(1, 3, 64, 64)
    for stage, feature in backbone.fold(net)(x).items():
        assert relative_error(feature, net(x)[stage]) < 1e-5
    with pytest.raises(backbone.ArchitectureError, match="not Conv2d"):
        backbone.fold(nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize("settings", [{}, {"channels_last": False}, {"dtype": torch.bfloat16}])
def test_the_copy_can_be_scripted(settings):
    folded = backbone.fold(network("resnet18", norm="frozen_bn"), **settings)
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    found = torch.jit.script(folded)(x)
    for stage, expected in folded(x).items():
        assert relative_error(found[stage], expected) < 1e-5
        assert found[stage].dtype is folded.dtype and not found[stage].requires_grad

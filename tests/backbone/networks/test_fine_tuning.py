"""Keywords and methods for fine-tuning, against timm and torchvision: channels, drop path, classifier, layer groups."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn

import backbone
from backbone.networks import Architecture
from backbone.networks.layer_decay import layer_depths

SMALL = Architecture((2, 1, 2, 1), "basic", (16, 16, 32, 32))
SMALL_VGG = Architecture((1,) * 5, "conv", (8,) * 5, "vgg", "none", None)
NAMES = ("resnet18", "preact_resnet18", "cifar_resnet20", "vgg16", "vgg16_bn")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 4, 12])
def test_images_of_other_channels(name, channels):
    stage = "conv1" if name.startswith("vgg") else "stem"
    net = backbone.create(name, in_chans=channels, out_features=(stage,)).eval()
    usual = backbone.create(name, out_features=(stage,))
    size = {key: value.numel() for key, value in net.state_dict().items()}
    first = next(iter(size))
    assert net.in_chans == channels
    assert size[first] * 3 == next(iter(usual.state_dict().values())).numel() * channels
    assert net(torch.rand(1, channels, 32, 32))[stage].shape[1] == net.feature_info[stage].channels
    assert backbone.fold(net).in_chans == channels
    torch.jit.script(net)(torch.rand(1, channels, 32, 32))


def test_the_deep_stem_takes_other_channels_too():
    net = backbone.create("resnet18", stem="deep", in_chans=4)
    assert (net.in_chans, net.conv1[0].weight.shape[1], net.conv1[3].weight.shape[1]) == (4, 4, 32)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("resnet18", {"in_chans": 0}),
        ("vgg16", {"in_chans": 2.0}),
        ("resnet18", {"drop_path_rate": 1.0}),
        ("resnet18", {"drop_path_rate": -0.1}),
        ("plain18", {"drop_path_rate": 0.1}),
        ("plain18", {"zero_init_residual": True}),
        ("vgg16", {"drop_path_rate": 0.1}),
    ],
)
def test_values_that_no_network_can_take(name, keywords):
    with pytest.raises(backbone.ArchitectureError, match=next(iter(keywords)) + "|plain net"):
        backbone.create(name, **keywords)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_residual_as_torchvisions(name):
    """The same tensors begin at 0, and none else."""
    ours = backbone.create(name, num_classes=10, zero_init_residual=True).state_dict()
    theirs = getattr(torchvision.models, name)(num_classes=10, zero_init_residual=True).state_dict()
    zeros = [{key for key, value in state.items() if not value.any()} for state in (ours, theirs)]
    assert {key for key in zeros[0] if key.startswith("layer")} == {key for key in zeros[1] if key.startswith("layer")}


def test_a_preactivated_block_begins_as_its_shortcut_as_timms():
    ours = backbone.create("preact_resnet50", zero_init_residual=True)
    theirs = timm.create_model("resnetv2_50")
    theirs.init_weights(zero_init_last=True)
    for stage in (0, 3):
        assert not theirs.stages[stage].blocks[0].conv3.weight.any()
        assert not getattr(ours, f"layer{stage + 1}")[0].conv3.weight.any()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_drop_path_as_timms(name):
    """Rates of all blocks, and a training step of the same random numbers."""
    theirs = timm.create_model(name, drop_path_rate=0.4, num_classes=7).train()
    ours = backbone.create(name, drop_path_rate=0.4, num_classes=7, out_features=("logits",)).train()
    ours.load_state_dict(theirs.state_dict())
    rates = [
        getattr(block.drop_path, "drop_prob", 0)
        for stage in range(1, 5)
        for block in theirs.get_submodule(f"layer{stage}")
    ]
    assert [
        getattr(block.drop_path, "p", 0) for stage in range(1, 5) for block in ours.get_submodule(f"layer{stage}")
    ] == rates
    images = torch.rand(4, 3, 64, 64)
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        torch.manual_seed(3)
        expected = theirs(images)
        torch.manual_seed(3)
        torch.testing.assert_close(ours(images)["logits"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backbone.fold(ours)(images)["logits"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_drop_path_leaves_out_whole_branches(name):
    net = backbone.networks.create(name, drop_path_rate=0.9, checkpointing=True, out_features=("res2",)).train()
    block = net.layer1[1]
    block.drop_path.p = 0.999999
    x = torch.rand(2, 64, 8, 8, requires_grad=True)
    torch.testing.assert_close(block(x), x)
    torch.manual_seed(0)
    net(torch.rand(2, 3, 32, 32))["res2"].sum().backward()
    torch.jit.script(net)


@pytest.mark.parametrize("name", ["resnet18", "cifar_preact_resnet110", SMALL_VGG], ids=["resnet", "preact", "vgg"])
def test_reset_classifier(name):
    features = backbone.create(name).out_features
    net = backbone.create(name, num_classes=5).double().eval()
    images, last = torch.rand(1, 3, 32, 32).double(), features[-1]
    before = net(images)[last]
    net.reset_classifier(9)
    out = net(images)
    assert out["logits"].shape == (1, 9) and net.feature_info["logits"].channels == 9
    assert not any(module.training for module in net.modules())
    assert torch.equal(out[last], before)
    net.reset_classifier(0)
    assert net.out_features == features and net.state_dict().keys() == backbone.create(name).state_dict().keys()
    assert torch.equal(net(images)[last], before)
    net.reset_classifier(3)
    again = backbone.create(name, num_classes=3)
    assert net.state_dict().keys() == again.state_dict().keys() and net.built_names == again.built_names
    assert net(images)["logits"].shape == (1, 3)
    assert list(net.feature_info) == list(again.feature_info) and net.out_features == again.out_features
    torch.jit.script(net)


def test_reset_classifier_of_logits_alone_and_of_a_network_without_its_end(tmp_path):
    net = backbone.create("resnet18", num_classes=4, out_features=("logits",))
    net.reset_classifier(0)
    assert net.out_features == ("res5",)
    net.reset_classifier(6)
    backbone.save_weights(net, tmp_path / "w.pth")
    assert backbone.load_weights(backbone.create("resnet18", num_classes=6), tmp_path / "w.pth").fits
    with pytest.raises(backbone.ArchitectureError, match="res5, which is not built"):
        backbone.create("resnet18", out_features=("res3",)).reset_classifier(6)
    with pytest.raises(backbone.ArchitectureError, match="0 or more"):
        net.reset_classifier(-1)


@pytest.mark.parametrize(
    ("name", "theirs"), [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("vgg16_bn", "vgg16_bn")]
)
@pytest.mark.parametrize("coarse", [True, False])
def test_layer_groups_as_timms(name, theirs, coarse):
    with torch.device("meta"):
        net, other = backbone.create(name, num_classes=10), timm.create_model(theirs, num_classes=10)
    found = layer_depths(net, coarse=coarse)
    expected = group_parameters(other, other.group_matcher(coarse=coarse), reverse=True)
    renamed = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
    for key, value in renamed.items():
        expected = {name.replace(key, value): depth for name, depth in expected.items()}
    assert found == {name: expected[name] for name in found} and len(found) == len(list(net.parameters()))
    assert found == {name: group_parameters(net, net.group_matcher(coarse), reverse=True)[name] for name in found}


def test_the_end_of_a_preactivated_network_goes_with_its_last_block():
    with torch.device("meta"):
        net = backbone.create("preact_resnet18", num_classes=10)
    depths = layer_depths(net)
    assert depths["conv1.weight"] == 0 and depths["layer1.0.bn1.weight"] == 1 and depths["layer4.1.conv1.weight"] == 8
    assert depths["bn.weight"] == 8 and depths["fc.weight"] == 9
    assert depths == group_parameters(net, net.group_matcher(), reverse=True)


def test_learning_rates_fall_as_timms():
    net = backbone.networks.create(SMALL, num_classes=4, freeze_at=1)
    groups = backbone.layer_decay_groups(nn.DataParallel(net), lr=0.1, layer_decay=0.7, weight_decay=0.02)
    expected = param_groups_layer_decay(net, weight_decay=0.02, layer_decay=0.7)
    as_plain = [
        {(id(p), group["lr_scale"], group["weight_decay"]) for group in found for p in group["params"]}
        for found in (groups, expected)
    ]
    assert as_plain[0] == as_plain[1] and len(groups) == len(expected)
    assert all(group["lr"] == pytest.approx(0.1 * group["lr_scale"]) for group in groups)
    torch.optim.SGD(groups, lr=0.1)
    with pytest.raises(backbone.ArchitectureError, match="layer_decay"):
        backbone.layer_decay_groups(net, lr=0.1, layer_decay=0)
    with pytest.raises(backbone.ArchitectureError, match="no network"):
        backbone.layer_decay_groups(nn.Linear(1, 1), lr=0.1)

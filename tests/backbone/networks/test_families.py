"""Every network of the table: published counts, equality with torchvision and timm, a training step."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis
from randomize import randomize, relative_error
from torch import nn
from torchvision.models import get_model_weights

import backbone
from backbone.networks import ARCHITECTURES

TORCHVISION = [name for name in ARCHITECTURES if name in torchvision.models.list_models()]
TIMM_PREACT = {f"preact_resnet{depth}": f"resnetv2_{depth}" for depth in (18, 34, 50, 101, 152)}
DEEPEST = ("cifar_resnet1202", "cifar_preact_resnet1001")

# Parameters, in units of 1e6: Table 6 of the paper, computed with option A; pre-activation networks from Tables 2 and 5
# of arXiv 1603.05027 and from the Torch release of their authors.
MILLIONS = {
    "cifar_resnet20": 0.270,
    "cifar_resnet32": 0.464,
    "cifar_resnet44": 0.659,
    "cifar_resnet56": 0.853,
    "cifar_resnet110": 1.728,
    "cifar_resnet1202": 19.42,
    "cifar_plain20": 0.270,
    "cifar_plain32": 0.464,
    "cifar_plain44": 0.659,
    "cifar_plain56": 0.853,
    "cifar_preact_resnet110": 1.7,
    "cifar_preact_resnet164": 1.7,
    "cifar_preact_resnet1001": 10.3,
    "preact_resnet200": 64.7,
}
# Multiply-adds, in units of 1e6, as the literature on pruning states them for 32 x 32 images (He et al., arXiv
# 1808.06866: ResNet-20, 32, 56 and 110).
CIFAR_MACS = {"cifar_resnet20": 40.6, "cifar_resnet32": 68.9, "cifar_resnet56": 125.5, "cifar_resnet110": 252.9}


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def classifier(name: str, **keywords) -> backbone.Backbone:
    return backbone.create(name, num_classes=ARCHITECTURES[name].num_classes, **keywords)


def macs(net: nn.Module, size: int) -> int:
    counter = FlopCountAnalysis(net.eval(), torch.zeros(1, 3, size, size)).unsupported_ops_warnings(False)
    return counter.by_operator()["conv"] + counter.by_operator()["linear"]


@pytest.mark.parametrize("name", TORCHVISION)
def test_counts_equal_those_torchvision_publishes(name):
    published = next(iter(get_model_weights(name))).meta
    net = classifier(name, out_features=["logits"])
    assert parameters(net) == published["num_params"]
    assert macs(net, 224) / 1e9 == pytest.approx(published["_ops"], abs=5e-4)


@pytest.mark.parametrize("name", MILLIONS)
def test_counts_equal_the_papers(name):
    with torch.device("meta"):
        net = classifier(name)
    digits = len(str(MILLIONS[name]).partition(".")[2])
    assert round(parameters(net) / 1e6, digits) == MILLIONS[name]


@pytest.mark.parametrize("name", CIFAR_MACS)
def test_macs_of_cifar_networks(name):
    assert macs(classifier(name, out_features=["logits"]), 32) / 1e6 == pytest.approx(CIFAR_MACS[name], rel=2e-3)


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_nets_and_option_a_have_the_residual_nets_layers_alone(depth):
    """Option A is free of parameters, and so is leaving the shortcut out."""
    residual = classifier(f"resnet{depth}")
    projections = sum(parameters(m) for name, m in residual.named_modules() if name.endswith("downsample"))
    plain, padded, projected = (
        classifier(f"plain{depth}"),
        classifier(f"resnet{depth}", shortcut="A"),
        classifier(f"resnet{depth}", shortcut="C"),
    )
    assert parameters(plain) == parameters(padded) == parameters(residual) - projections
    assert sum(name.endswith("downsample.0") for name, _ in projected.named_modules()) == sum(
        ARCHITECTURES[f"resnet{depth}"].blocks
    )
    assert plain.state_dict().keys() == padded.state_dict().keys()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        randomize(plain).eval()
        padded.load_state_dict(plain.state_dict())
        assert not torch.allclose(plain(x)["logits"], padded.eval()(x)["logits"])


@torch.no_grad()
def test_option_a_by_hand():
    """Every second pixel, and zeros on both sides of the channels."""
    net = randomize(backbone.create("resnet18", shortcut="A", out_features=["res3"])).eval()
    x = torch.randn(1, 64, 9, 7)
    block = net.layer2[0]
    residual = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    expected = residual.clone()
    expected[:, 32:96] += x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected.relu())


@torch.no_grad()
def test_plain_net_by_hand():
    net = randomize(classifier("plain18", out_features=["logits"])).eval()
    peer = torchvision.models.resnet18()
    state = {**peer.state_dict(), **net.state_dict()}
    peer.load_state_dict(state)
    peer.eval()
    x = torch.randn(1, 3, 64, 64)
    y = peer.maxpool(peer.bn1(peer.conv1(x)).relu())
    for layer in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
        for block in layer:
            y = block.bn2(block.conv2(block.bn1(block.conv1(y)).relu())).relu()
    assert torch.equal(net(x)["logits"], peer.fc(y.mean((2, 3), keepdim=True).flatten(1)))


@pytest.mark.parametrize("name", [name for name in TORCHVISION if not name.startswith("resnet")])
@torch.no_grad()
def test_relatives_equal_torchvision(name):
    peer = randomize(getattr(torchvision.models, name)()).eval()
    net = classifier(name, out_features=["logits"]).eval()
    net.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 64, 96)
    assert torch.equal(net(x)["logits"], peer(x))


@torch.no_grad()
def test_vgg_stages_equal_torchvision():
    peer = randomize(torchvision.models.vgg16()).eval()
    net = backbone.create("vgg16", out_features=("conv1", "conv2", "conv3", "conv4", "conv5")).eval()
    net.load_state_dict({key: value for key, value in peer.state_dict().items() if key.startswith("features.")})
    x = torch.randn(1, 3, 70, 50)
    features = net(x)
    for stage, end in zip(features, (4, 9, 16, 23, 30)):
        assert torch.equal(features[stage], peer.features[:end](x))
        assert features[stage].shape[1] == net.feature_info[stage].channels
    assert [info.stride for info in net.feature_info.values()] == [1, 2, 4, 8, 16]


def test_vgg_frozen_stages():
    """Faster R-CNN freezes conv1 and conv2 of VGG-16."""
    net = backbone.create("vgg16", freeze_at=2)
    frozen = [name for name, parameter in net.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"features.{index}.{kind}" for index in (0, 2, 5, 7) for kind in ("weight", "bias")]


def preact_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of timm's resnetv2 to ours."""
    renamed = {}
    for name, value in state.items():
        name = (
            name.replace("stem.conv.", "conv1.").replace("head.fc.", "fc.").replace("downsample.conv.", "downsample.0.")
        )
        name = "bn." + name[5:] if name.startswith("norm.") else name.replace(".norm", ".bn")
        if name.startswith("stages."):
            _, stage, _, rest = name.split(".", 3)
            name = f"layer{int(stage) + 1}.{rest}"
        renamed[name] = value.flatten(1) if name == "fc.weight" else value
    return renamed


@pytest.mark.parametrize("name", TIMM_PREACT)
@torch.no_grad()
def test_preactivation_equals_timm(name):
    peer = randomize(timm.create_model(TIMM_PREACT[name])).eval()
    net = randomize(classifier(name)).eval()
    net.load_state_dict(preact_names(peer.state_dict()))
    x = torch.randn(1, 3, 64, 96)
    features = net(x)
    assert relative_error(features["logits"], peer(x)) < 1e-5
    assert parameters(net) == parameters(peer)
    stage = peer.stem(x)
    for index, name in enumerate(("res2", "res3", "res4")):
        stage = peer.stages[index](stage)
        assert relative_error(features[name], stage) < 1e-5
    assert relative_error(features["res5"], peer.norm(peer.stages[3](stage))) < 1e-5


@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_resnet_d_equals_timm(depth):
    peer = randomize(timm.create_model(f"resnet{depth}d")).eval()
    net = classifier(f"resnet{depth}", stem="deep", average_down=True).eval()
    state = {}
    for name, value in peer.state_dict().items():
        for ours, theirs in ((".downsample.0.", ".downsample.1."), (".downsample.1.", ".downsample.2.")):
            if theirs in name:
                name = name.replace(theirs, ours)
                break
        state[name] = value
    net.load_state_dict(state)
    x = torch.randn(1, 3, 65, 97)
    assert relative_error(net(x)["logits"], peer(x)) < 1e-5


@torch.no_grad()
def test_ceil_pool_is_caffes():
    """No padding, output size rounded up: 224 -> 112 -> 56, and one more than torchvision's at odd remainders."""
    net = backbone.create("resnet18", out_features=["stem"], ceil_pool=True).eval()
    x = torch.randn(1, 3, 64, 74)
    before = net.bn1(net.conv1(x)).relu()
    expected = nn.functional.max_pool2d(before, 3, 2, ceil_mode=True)
    assert torch.equal(net(x)["stem"], expected)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in DEEPEST])
def test_every_network_takes_a_training_step(name):
    step(name, "bn")


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet50", "cifar_plain20", "vgg16_bn"])
def test_every_kind_of_network_takes_a_step_with_frozen_bn(name):
    step(name, "frozen_bn")


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEPEST)
def test_the_deepest_networks_take_a_training_step(name):
    step(name, "bn")


def step(name: str, norm: str) -> None:
    torch.manual_seed(0)
    size = ARCHITECTURES[name].image_size
    net = classifier(name, norm=norm, freeze_at=1).train()
    if name != "vgg16":
        randomize(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    first = tuple(f"{part}." for part in net.stage_modules(net.stage_names[0]))
    before = {key: value.clone() for key, value in net.named_parameters() if key.startswith(first)}
    # An image of one cell in the last stage: quick, and BN needs two values a channel.
    features = net(torch.randn(2, 3, 16 if size == 32 else 64, 16 if size == 32 else 64))
    assert features["logits"].shape == (2, ARCHITECTURES[name].num_classes)
    nn.functional.cross_entropy(features["logits"], torch.tensor([0, 1])).backward()
    optimizer.step()
    assert before
    for key, parameter in net.named_parameters():
        assert torch.isfinite(parameter).all()
        assert (parameter.grad is None) == (key in before), key
        assert key not in before or torch.equal(parameter, before[key])


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in DEEPEST])
@torch.no_grad()
def test_feature_info_of_every_network(name):
    table = ARCHITECTURES[name]
    with torch.device("meta"):
        net, images = backbone.create(name, out_features=table.stages).eval(), torch.zeros(1, 3, 48, 40)
    assert list(net.feature_info) == (["stem"] if table.family != "vgg" else []) + list(table.stages)
    for stage, feature in net(images).items():
        info = net.feature_info[stage]
        sides = [side // info.stride if table.family == "vgg" else -(-side // info.stride) for side in (48, 40)]
        assert feature.shape == (1, info.channels, *sides)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"name": "plain18", "shortcut": "A"}, "no shortcuts"),
        ({"name": "resnet18", "shortcut": "D"}, "A, B, C"),
        ({"name": "resnet18", "stem": "deeper"}, "conv7, deep"),
        ({"name": "cifar_resnet20", "output_stride": 8}, "CIFAR"),
        ({"name": "cifar_resnet20", "stem": "deep"}, "CIFAR"),
        ({"name": "cifar_resnet_20"}, "did you mean 'cifar_resnet20'"),
        ({"name": "vgg16", "stride_in_1x1": True}, "unknown keyword 'stride_in_1x1'"),
        ({"name": "vgg16", "out_features": ["res2"]}, "conv1"),
        ({"name": "vgg16", "dropout": 1.0}, "dropout"),
    ],
)
def test_mistakes_are_named(keywords, words):
    with pytest.raises(backbone.ArchitectureError, match=words):
        backbone.create(**keywords)

"""Frozen BN: fused with its convolution, constant, and out of the optimizer's sight."""

from __future__ import annotations

import copy

import pytest
import torch
from randomize import randomize, relative_error
from torch import nn
from torch.func import functional_call

import backbone
from backbone.networks.calibration import calibrate_frozen_bn
from backbone.networks.conv_norm import conv_norm
from backbone.networks.norm import (
    NORMS,
    FrozenBatchNorm2d,
    freeze_norm,
    make_norm,
    synchronise_norm,
    unfreeze_norm,
)


class Pair(nn.Module):
    """A convolution and its frozen BN, fused or one after the other."""

    def __init__(self, *, fused: bool, groups: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.fused = fused
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups, bias=bias)
        self.norm = FrozenBatchNorm2d(6)

    def forward(self, x):
        return conv_norm(self.conv, self.norm, x) if self.fused else self.norm(self.conv(x))


def pairs(**keywords) -> tuple[Pair, Pair]:
    fused, unfused = (randomize(Pair(fused=fused, **keywords)) for fused in (True, False))
    unfused.load_state_dict(fused.state_dict())
    return fused, unfused


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_the_fused_form_are_right(groups):
    fused = pairs(groups=groups)[0].double()
    x = torch.randn(2, 4, 7, 6, dtype=torch.double, requires_grad=True)
    weight = fused.conv.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, weight: functional_call(fused, {"conv.weight": weight}, (x,)), (x, weight)
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fused_equals_unfused(bias, memory_format):
    fused, unfused = (pair.double().to(memory_format=memory_format) for pair in pairs(bias=bias))
    x = torch.randn(2, 4, 9, 8, dtype=torch.double).to(memory_format=memory_format)
    outputs = []
    for pair in (fused, unfused):
        out = pair(x)
        out.square().sum().backward()
        outputs.append((out, pair.conv.weight.grad))
    assert torch.allclose(outputs[0][0], outputs[1][0], rtol=1e-12)
    assert torch.allclose(outputs[0][1], outputs[1][1], rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_fused_under_autocast(dtype):
    fused, unfused = pairs()
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    with torch.autocast("cpu", dtype):
        out = fused(x)
    assert out.dtype == dtype
    out.float().sum().backward()
    assert fused.conv.weight.grad.dtype == torch.float32
    assert x.grad.dtype == torch.float32
    unfused(x).sum().backward()
    assert relative_error(fused.conv.weight.grad, unfused.conv.weight.grad) < 0.03


def one_after_the_other(conv, norm, x, *, add=None, relu=False):
    out = norm(conv(x))
    out = out if add is None else out + add
    return out.relu() if relu else out


def test_a_network_trains_like_the_unfused_one(monkeypatch):
    """Whole ResNet-50, float64: the same gradients with every pair fused and none."""
    gradients = []
    image = torch.randn(1, 3, 64, 64, dtype=torch.double)
    for fused in (True, False):
        if not fused:
            for module in ("backbone.networks.blocks", "backbone.networks.resnet"):
                monkeypatch.setattr(f"{module}.conv_norm", one_after_the_other)
        net = randomize(backbone.create("resnet50", norm="frozen_bn", freeze_at=2)).double().train()
        sum(feature.square().mean() for feature in net(image).values()).backward()
        gradients.append({name: parameter.grad for name, parameter in net.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        if gradient is None:
            assert name.startswith(("conv1", "layer1"))
            assert gradients[1][name] is None
        else:
            assert torch.allclose(gradient, gradients[1][name], rtol=1e-9), name


def test_buffers_never_change_and_never_reach_the_optimizer():
    net = randomize(backbone.create("resnet18", norm="frozen_bn")).train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    assert len(before) == 20 * 4
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.5)
    tensors = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not tensors & {id(buffer) for buffer in net.buffers()}
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 64, 64))["res5"].mean().backward()
        optimizer.step()
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("freeze_at", range(6))
@pytest.mark.parametrize("norm", NORMS)
def test_frozen_stages(freeze_at, norm):
    net = backbone.create(
        "resnet18", norm=norm, freeze_at=freeze_at, out_features=("stem", "res2", "res3", "res4", "res5")
    )
    frozen = net.stage_names[:freeze_at]
    for stage in net.stage_names:
        for name in net.stage_modules(stage):
            module = net.get_submodule(name)
            assert all(parameter.requires_grad != (stage in frozen) for parameter in module.parameters())
            if norm in ("bn", "sync_bn"):
                layers = [layer for layer in module.modules() if hasattr(layer, "running_mean")]
                assert all(isinstance(layer, FrozenBatchNorm2d) == (stage in frozen) for layer in layers)


@pytest.mark.parametrize("freeze_at", [0, 2, 4, 5])
def test_frozen_stages_store_no_activations(freeze_at):
    net = backbone.create("resnet50", norm="frozen_bn", freeze_at=freeze_at).train()
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: stored.append(tensor) or tensor, lambda tensor: tensor
    ):
        features = net(torch.randn(1, 3, 64, 64))
    for stage, feature in features.items():
        trained = int(stage[3:]) > freeze_at
        assert feature.requires_grad == trained
    parameters = {parameter.data_ptr() for parameter in net.parameters()}
    activations = [tensor for tensor in stored if tensor.data_ptr() not in parameters and tensor.dim() == 4]
    assert bool(activations) == (freeze_at < 5)
    # The first activation that is kept is what the first trained layer reads.
    if 0 < freeze_at < 5:
        assert max(tensor.shape[2] for tensor in activations) == features[f"res{freeze_at}"].shape[2]


def test_scaled_weights_are_not_stored():
    """What training keeps is activations, the parameters that exist anyway and small vectors: no second weights."""
    net = backbone.create("resnet50", norm="frozen_bn", freeze_at=2).train()
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: stored.append(tensor) or tensor, lambda tensor: tensor
    ):
        net(torch.randn(2, 3, 64, 64))
    parameters = {parameter.data_ptr() for parameter in net.parameters()}
    weights = [tensor for tensor in stored if tensor.dim() == 4 and tensor.shape[0] != 2]
    assert weights
    assert all(weight.data_ptr() in parameters for weight in weights)


def test_freezing_keeps_the_function():
    net = randomize(backbone.create("resnet18")).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(image)["res5"]
        freeze_norm(net)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        assert relative_error(net(image)["res5"], expected) < 1e-5
        unfreeze_norm(net)
        assert not any(isinstance(module, FrozenBatchNorm2d) for module in net.modules())
        assert torch.equal(net.eval()(image)["res5"], expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.03, "eps": 1e-3},
        {"momentum": None},
        {"affine": False},
        {"track_running_stats": False},
        {"affine": False, "track_running_stats": False},
    ],
)
@pytest.mark.parametrize("turn", [lambda net: unfreeze_norm(freeze_norm(net)), synchronise_norm])
def test_the_settings_of_a_norm_come_through(settings, turn):
    """After the turns the layer goes on as torch's own that was never turned."""
    expected = nn.Sequential(nn.BatchNorm2d(3, **settings))
    net = nn.Sequential(nn.BatchNorm2d(3, **settings))
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    batch = torch.randn(4, 3, 5, 5)
    assert torch.equal(net(batch), expected(batch))
    evaluated = expected.eval()(batch)
    assert torch.allclose(freeze_norm(copy.deepcopy(net)).eval()(batch), evaluated, atol=1e-6)
    net = turn(net)
    assert isinstance(net[0], nn.BatchNorm2d)
    assert (net[0].eps, net[0].momentum) == (expected[0].eps, expected[0].momentum)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(net.train()(batch + 1), expected.train()(batch + 1))
    assert net.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in net.state_dict().items())


def test_a_layer_in_several_places_stays_one():
    shared = nn.BatchNorm2d(3)
    net = freeze_norm(nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared), shared))
    assert isinstance(net[0], FrozenBatchNorm2d) and net[0] is net[2][0] is net[3]


def test_unfreezing_keeps_affine_terms_that_were_loaded_meanwhile():
    frozen = freeze_norm(nn.BatchNorm2d(3, affine=False))
    frozen.load_state_dict(randomize(FrozenBatchNorm2d(3)).state_dict())
    assert torch.equal(unfreeze_norm(frozen).weight, frozen.weight)


@pytest.mark.parametrize("norm", ["bn", "sync_bn", "frozen_bn", "gn"])
def test_stages_are_frozen_and_released(norm):
    """`freeze` alone decides of a stage; what it releases is as if it had never been frozen."""
    net, untouched = (randomize(backbone.create("resnet18", norm=norm)) for _ in range(2))
    untouched.load_state_dict(net.state_dict())
    kinds = {name: type(module) for name, module in net.named_modules()}
    net.freeze(3)
    net.freeze(1)
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == (
        ["conv1.weight"] + (["bn1.weight", "bn1.bias"] if norm == "gn" else [])
    )
    unfreeze_norm(synchronise_norm(net))
    assert isinstance(net.bn1, FrozenBatchNorm2d) == (norm != "gn")
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in net.layer1.modules())
    net.freeze(0)
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in net.modules())
    net = backbone.create("resnet18", norm=norm, freeze_at=5)
    net.load_state_dict(untouched.state_dict(), strict=False)
    net.freeze(0)
    assert {name: type(module) for name, module in net.named_modules()} == kinds
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(net.train()(image)["res5"], untouched.train()(image)["res5"])


def test_what_was_frozen_by_hand_stays_frozen_when_its_stage_is_released():
    net = freeze_norm(backbone.create("resnet18", freeze_at=2))
    net.freeze(0)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_frozen_and_trained_state_dicts_load_into_each_other():
    trained, frozen = backbone.create("resnet18"), backbone.create("resnet18", norm="frozen_bn")
    frozen.load_state_dict(randomize(trained).state_dict())
    assert torch.equal(frozen.bn1.running_var, trained.bn1.running_var)


def test_calibration_gives_unit_activations():
    net = backbone.create("resnet101", norm="frozen_bn")
    images = [torch.randn(1, 3, 96, 96) for _ in range(2)]
    with torch.no_grad():
        assert net(images[0])["res5"].abs().max() > 1e3
        calibrate_frozen_bn(net, images)
        assert net(images[0])["res5"].abs().max() < 100
    assert all(not isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_calibration_leaves_trained_norms_and_frozen_stages_as_they_are():
    net = backbone.create("resnet18", freeze_at=2)
    before = copy.deepcopy(net)
    calibrate_frozen_bn(net, [torch.randn(1, 3, 64, 64) for _ in range(2)])
    assert str(net) == str(before) and net.bn1.held
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert changed == {name for name in before.state_dict() if "running" in name and name.startswith(("bn1", "layer1"))}


def test_groups_divide_narrow_layers():
    assert make_norm("gn", 16).num_groups == 16
    assert make_norm("gn", 64).num_groups == 32

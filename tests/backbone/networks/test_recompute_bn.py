"""True averages for BN against the definition and fvcore's precise BN, in one process and in two; freezing."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import warm_commands
from fvcore.nn.precise_bn import update_bn_stats
from randomize import randomize, relative_error
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import backbone
from backbone import freeze_norm
from backbone.common.errors import ArchitectureError, DataError
from backbone.networks.precise_bn import recompute_bn


def pictures(number: int = 12, size: int = 32) -> torch.Tensor:
    """Images of different brightness and contrast, so that batches differ."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(number, 3, size, size, generator=generator)
    return images * torch.linspace(0.5, 2, number).view(-1, 1, 1, 1) + torch.linspace(-3, 3, number).view(-1, 1, 1, 1)


def network(name: str = "cifar_resnet20", **keywords) -> backbone.Backbone:
    return randomize(backbone.create(name, **keywords))


def statistics(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items() if "running" in name}


@pytest.mark.parametrize("batch_size", [1, 5, 12])
@torch.no_grad()
def test_first_layer_has_the_pooled_mean_and_variance_whatever_the_batches(batch_size):
    net, images = network(), pictures()
    report = recompute_bn(net, images.split(batch_size), 12)
    x = net.conv1(images).double()
    assert torch.allclose(net.bn1.running_mean.double(), x.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert torch.allclose(net.bn1.running_var.double(), x.var((0, 2, 3), correction=0), rtol=1e-5)
    of_batches = torch.stack([batch.var((0, 2, 3)) for batch in x.split(batch_size)]).mean(0)
    if batch_size < 12:
        assert (of_batches / net.bn1.running_var).min() < 0.9
    assert (report.images, len(report.layers), report.unused) == (12, 19, ())


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet18", "cifar_preact_resnet110"])
@pytest.mark.parametrize("norm", ["bn", "sync_bn"])
def test_equals_fvcore(name, norm):
    """fvcore's estimator pools the variance too; batches of unequal size count by their images in both."""
    net = network(name, norm=norm)
    peer = copy.deepcopy(net).train()
    batches = pictures(9, 64 if name == "resnet18" else 16).split(4)
    assert [len(batch) for batch in batches] == [4, 4, 1]
    update_bn_stats(peer, batches, num_iters=3)
    recompute_bn(net, batches, 9)
    expected = statistics(peer)
    assert len(expected) == len(statistics(net)) > 20
    for key, value in statistics(net).items():
        assert relative_error(value, expected[key]) < 2e-5, key


@torch.no_grad()
def test_does_not_cancel_where_the_mean_is_far_from_zero():
    net = nn.BatchNorm2d(3)
    images = torch.randn(8, 3, 16, 16) + 3000
    recompute_bn(net, images.split(2), 8)
    exact = images.double().var((0, 2, 3), correction=0)
    assert torch.allclose(net.running_var.double(), exact, rtol=1e-4)


def test_leaves_everything_else_as_it_was():
    net = network("resnet18", freeze_at=2, num_classes=4).train()
    net.layer3.eval()
    net.layer2[0].bn1.momentum, net.layer2[0].bn2.momentum = None, 0.3
    net.layer3[0].bn1.num_batches_tracked += 7
    net.layer4.requires_grad_(False)
    net(pictures(2, 64))["logits"].sum().backward()

    def rest() -> tuple:
        return (
            {name: module.training for name, module in net.named_modules()},
            {name: getattr(module, "momentum", 0) for name, module in net.named_modules()},
            {name: parameter.requires_grad for name, parameter in net.named_parameters()},
        )

    flags, state, random = rest(), copy.deepcopy(net.state_dict()), torch.get_rng_state()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    hooks = {name: len(module._forward_pre_hooks) for name, module in net.named_modules()}
    loader = DataLoader(TensorDataset(pictures(8, 64)), batch_size=4, shuffle=True)
    report = recompute_bn(net, loader, 8)
    assert rest() == flags and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(net.get_parameter(name).grad, gradients[name]) for name in gradients)
    assert hooks == {name: len(module._forward_pre_hooks) for name, module in net.named_modules()}
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, state[name])}
    assert changed == {f"{layer}.{kind}" for layer in report.layers for kind in ("running_mean", "running_var")}
    assert {name.split(".")[0] for name in report.layers} == {"layer2", "layer3", "layer4"}


def test_dropout_is_off():
    net = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3)).train()
    images = pictures()
    recompute_bn(net, [images], 12)
    assert torch.allclose(net[1].running_mean, images.mean((0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda images: (images, torch.zeros(len(images))),
        lambda images: [images, torch.zeros(len(images))],
        lambda images: {"image": images},
        lambda images: {"labels": 0, "images": images},
    ],
)
def test_kinds_of_batches(wrap):
    net, images = nn.BatchNorm2d(3), pictures()
    recompute_bn(net, [wrap(batch) for batch in images.split(4)], 12)
    assert torch.allclose(net.running_mean, images.mean((0, 2, 3)), atol=1e-5)


def test_prepare():
    net, images = nn.BatchNorm2d(3), pictures()
    records = [[{"image": image} for image in images]]
    prepare = lambda batch: torch.stack([record["image"] for record in batch]) * 2  # noqa: E731
    recompute_bn(net, records, 12, prepare=prepare)
    assert torch.allclose(net.running_mean, 2 * images.mean((0, 2, 3)), atol=1e-5)


def test_the_last_batch_is_cut_and_a_short_loader_is_told():
    net, images = nn.BatchNorm2d(3), pictures()
    assert recompute_bn(net, images.split(5), 7).images == 7
    assert torch.allclose(net.running_mean, images[:7].mean((0, 2, 3)), atol=1e-5)
    report = recompute_bn(net, images.split(5), 1000)
    assert (report.images, str(report)) == (12, "statistics of 1 BN layer from 12 images")


def test_layers_that_are_not_reached_keep_their_statistics():
    net = network()
    net.spare = nn.BatchNorm2d(4)
    report = recompute_bn(net, [pictures()], 12)
    assert report.unused == ("spare",) and (net.spare.running_var == 1).all()


@pytest.mark.parametrize(
    ("loader", "number", "said"),
    [
        ([], 4, "no images"),
        ([pictures()], 0, "num_images .* not 0"),
        ([pictures()], -3, "not -3"),
        ([pictures()], 2.5, "not 2.5"),
        ([{"pixels": 1}], 4, "only pixels"),
        (["text"], 4, "not str"),
        ([pictures()[0]], 4, r"not \(3, 32, 32\)"),
        ([pictures().byte()], 4, "not torch.uint8"),
        ([pictures(1, 1)], 4, "bn1 sees one value a channel"),
        ([pictures(), pictures() * float("nan")], 24, "bn1 has NaN"),
    ],
)
def test_mistakes_change_nothing(loader, number, said):
    net = network().eval()
    state = copy.deepcopy(net.state_dict())
    with pytest.raises(DataError, match=said) as caught:
        recompute_bn(net, loader, number)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize("norm", ["frozen_bn", "gn"])
def test_networks_without_bn(norm):
    net = backbone.create("resnet18", norm=norm)
    with pytest.raises(ArchitectureError, match="resnet18: no batch normalisation"):
        recompute_bn(net, [pictures()], 4)


def share(rank: int, folder: Path, norm: str, uneven: bool) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net = network(norm=norm)
    batches = [batch[rank::2] for batch in pictures().split(4)]
    if uneven and rank:
        batches = batches[:2]
    report = recompute_bn(net, batches, 12)
    torch.save({"images": report.images, "state": statistics(net)}, folder / f"{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize(("norm", "uneven"), [("sync_bn", False), ("bn", False), ("sync_bn", True)])
def test_two_processes(tmp_path, norm, uneven):
    """Synchronised BN sees the joint batches at every layer, plain BN its own: there the first layer is the same."""
    warm_commands.call(share, tmp_path, norm, uneven)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    number = 8 if uneven else 12
    assert first["images"] == second["images"] == number
    net = network()
    recompute_bn(net, pictures().split(4), number)
    for name, expected in statistics(net).items():
        assert torch.equal(first["state"][name], second["state"][name])
        if norm == "sync_bn" or name.startswith("bn1."):
            assert relative_error(first["state"][name], expected) < 2e-5, name


@torch.no_grad()
def test_freezing_adds_no_more_than_rounding_in_float32():
    net = network("cifar_resnet20", num_classes=10)
    images = pictures(32)
    recompute_bn(net, [images], 32)
    expected = net.eval()(images)
    exact = copy.deepcopy(net).double()(images.double())
    for stage, feature in freeze_norm(net).train()(images).items():
        rounding = relative_error(expected[stage], exact[stage])
        assert relative_error(feature, expected[stage]) < max(1e-6, 3 * rounding) < 1e-5, stage


@pytest.mark.parametrize("norm", ["bn", "sync_bn"])
@pytest.mark.parametrize("name", ["resnet50", "cifar_preact_resnet110"])
def test_freezing_is_one_call(name, norm):
    net = network(name, norm=norm).double()
    images = pictures(2, 64).double()
    recompute_bn(net, [images], 2)
    frozen = freeze_norm(copy.deepcopy(net))
    with torch.no_grad():
        expected, features = net.eval()(images), frozen.train()(images)
        for stage, feature in features.items():
            assert relative_error(feature, expected[stage]) < 1e-10, stage
    peer = backbone.create(name, norm="frozen_bn").double()
    assert frozen.state_dict().keys() == peer.state_dict().keys()
    assert [key for key, _ in frozen.named_parameters()] == [key for key, _ in peer.named_parameters()]
    peer.load_state_dict(frozen.state_dict())
    for stage, feature in peer(images).items():
        assert torch.equal(feature, features[stage])

"""The maps of frozen BN that a pass makes at once, where a network is changed, copied or shared while it runs."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import backbone
from backbone.networks import conv_norm
from backbone.networks.norm import FrozenBatchNorm2d


def norms_of(module):
    return [layer for layer in module.modules() if type(layer) is FrozenBatchNorm2d]


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = backbone.create("cifar_resnet20", num_classes=10, out_features=("logits",), norm="frozen_bn")
    for norm in norms_of(made):
        norm.running_var.uniform_(0.5, 2)
        for tensor in (norm.running_mean, norm.bias):
            tensor.normal_()
    return made


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def logits(network):
    return network(IMAGES)["logits"].detach()


def in_place(stage):
    for norm in norms_of(stage):
        norm.running_mean.add_(1)


def other_tensors(stage):
    for norm in norms_of(stage):
        norm.running_mean = norm.running_mean + 1


def other_memory(stage):
    for norm in norms_of(stage):
        norm.running_mean.data = norm.running_mean + 1


@pytest.mark.parametrize("change", [in_place, other_tensors, other_memory])
def test_a_hook_of_a_stage_changes_its_norms(network, monkeypatch, change):
    before = logits(network)
    changed = copy.deepcopy(network)
    change(changed.layer2)
    network.layer2.register_forward_pre_hook(lambda module, inputs: change(module))
    found = logits(network)
    assert torch.equal(found, logits(changed)) and not torch.equal(found, before)


def test_a_copy_made_in_a_pass_is_its_own(network):
    copies = []
    network.layer1.register_forward_hook(lambda module, inputs, output: copies.append(copy.deepcopy(module)))
    logits(network)
    x = torch.randn(1, 16, 8, 8)
    in_place(copies[0])
    again = copy.deepcopy(copies[0])
    assert torch.equal(copies[0](x), again(x))
    assert conv_norm._MADE.maps is None


def test_maps_are_gone_after_a_pass_that_fails(network):
    def fail(module, inputs):
        raise ArithmeticError

    network.layer3.register_forward_pre_hook(fail)
    with pytest.raises(ArithmeticError):
        logits(network)
    assert conv_norm._MADE.maps is None


def test_threads_share_a_network(network):
    expected = logits(network)

    def run(train):
        if not train:
            with torch.inference_mode():
                return torch.equal(network(IMAGES)["logits"], expected)
        output = network(IMAGES)["logits"]
        torch.autograd.grad(output.sum(), network.conv1.weight)
        return torch.equal(output.detach(), expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, [number % 2 for number in range(40)]))


def test_norms_that_were_cut(network):
    expected = logits(network)
    for norm in norms_of(network):
        norm.num_features = 3
    assert torch.equal(logits(network), expected)

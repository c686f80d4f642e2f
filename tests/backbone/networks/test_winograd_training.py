"""Training by Winograd's form: values and gradients against torch's in float64; which layers take it, and when."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import backbone
from backbone.networks import conv_norm, winograd, winograd_training
from backbone.networks.conv_norm import WinogradConv2d, use_winograd
from backbone.networks.winograd_training import Convolution
from tests.backbone.networks.test_winograd import SHAPES

LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("part", [1, 2**24], ids=["smallest parts", "one part"])
@pytest.mark.parametrize("images, channels, kernels, height, width, padding", SHAPES)
def test_values_and_gradients_are_those_of_the_definition(
    images, channels, kernels, height, width, padding, part, layout, monkeypatch
):
    monkeypatch.setattr(winograd, "PART", part)
    torch.manual_seed(0)
    x = torch.randn(images, channels, height, width).contiguous(memory_format=layout)
    weight, bias = torch.randn(kernels, channels, 3, 3) / channels**0.5, torch.randn(kernels)
    ours = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    exact = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    found, wanted = Convolution.apply(*ours, (padding, padding)), F.conv2d(*exact, padding=padding)
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found.double(), wanted, atol=6e-5, rtol=0)
    # What follows may write over it.
    toward = torch.randn_like(found)
    found.relu_().backward(toward)
    wanted.relu().backward(toward.double())
    for ours_, exact_ in zip(ours, exact):
        scale = exact_.grad.abs().max()
        torch.testing.assert_close(ours_.grad / scale, (exact_.grad / scale).float(), atol=2e-5, rtol=0)


def test_gradients_of_gradients_are_torchs():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 4, 9, 9, requires_grad=True), torch.randn(4, 4, 3, 3, requires_grad=True)
    found = []
    for convolve in (lambda: Convolution.apply(x, weight, None, (1, 1)), lambda: F.conv2d(x, weight, padding=1)):
        (grad,) = torch.autograd.grad(convolve().pow(2).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.pow(2).sum(), weight)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-2)


def counted(monkeypatch) -> list[torch.Size]:
    """Return a list to which each convolution in Winograd's form adds the shape of its input."""
    calls, real = [], winograd_training.convolve

    def convolve(x, *others):
        calls.append(x.shape)
        return real(x, *others)

    monkeypatch.setattr(winograd_training, "convolve", convolve)
    monkeypatch.setattr(conv_norm, "convolve", convolve)
    return calls


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_a_network_learns_the_same(norm, monkeypatch):
    calls = counted(monkeypatch)
    monkeypatch.setattr(winograd_training, "LEAST_TILES", 1)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 96, 96)
    networks = [backbone.create("resnet18", norm=norm, out_features=("res3",)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    use_winograd(networks[1])
    assert networks[1].state_dict().keys() == networks[0].state_dict().keys()
    outputs = [network.train()(images)["res3"] for network in networks]
    # conv3_x without its first layer, of stride 2.
    assert calls == [torch.Size([2, 128, 12, 12])] * 3
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-4 * float(outputs[0].detach().abs().max()))
    toward = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(toward)
    for one, other in zip(networks[0].parameters(), networks[1].parameters()):
        torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-3 * float(one.grad.abs().max()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 128, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.Conv2d(128, 128, 3, padding=3),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_layers_that_stay_as_they_are(layer):
    use_winograd(layer)
    assert type(layer) is nn.Conv2d


def test_when_a_layer_takes_it(monkeypatch):
    calls = counted(monkeypatch)
    layer = nn.Conv2d(128, 128, 3, padding=1)
    use_winograd(layer)
    assert type(layer) is WinogradConv2d
    layer(torch.randn(1, 128, 32, 32))
    assert len(calls) == 1
    layer(torch.randn(1, 128, 16, 16))  # too few tiles
    layer(torch.randn(0, 128, 32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(1, 128, 32, 32))
    torch.jit.trace(layer, torch.randn(1, 128, 32, 32), check_trace=False)
    torch.func.vmap(layer)(torch.randn(2, 1, 128, 32, 32))
    layer.double()(torch.randn(1, 128, 32, 32, dtype=torch.float64))
    assert len(calls) == 1

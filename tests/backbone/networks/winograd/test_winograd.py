"""3x3 convolutions by Winograd's form against torch's in float64; where folded networks take it, and where not."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backbone.networks import conv_norm
from backbone.networks.folding import fold_pair
from backbone.networks.winograd import by_torch, choice, compiled
from backbone.networks.winograd.convolution import prepare_weight, winograd

# Images, channels in and out, height, width, padding: whole tiles, cut ones, one region each, none around, two around.
SHAPES = [
    (1, 5, 7, 8, 12, 1),
    (1, 5, 7, 9, 11, 1),
    (5, 8, 8, 7, 7, 1),
    (2, 8, 4, 25, 38, 1),
    (3, 6, 6, 14, 14, 0),
    (2, 4, 4, 3, 5, 2),
]
COMPILED_SHAPES = [
    (1, 16, 48, 8, 12, 1),
    (1, 32, 16, 9, 11, 1),
    (5, 16, 16, 7, 7, 1),
    (2, 80, 32, 25, 38, 1),
    (3, 16, 32, 14, 14, 0),
    (2, 16, 16, 3, 5, 2),
    (1, 16, 16, 1, 1, 1),
    (150, 16, 16, 5, 6, 1),
]


def need_kernels() -> None:
    if not compiled.is_available():
        pytest.skip(compiled.why_not())


def check_values(images, channels, kernels, height, width, padding, relu) -> None:
    torch.manual_seed(0)
    x = torch.randn(images, channels, height, width).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(kernels, channels, 3, 3) / channels**0.5, torch.randn(kernels)
    wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    found = winograd(x, prepare_weight(weight), bias, (padding, padding), relu=relu)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), wanted.relu() if relu else wanted, atol=6e-5, rtol=0)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("part", [1, 2**24], ids=["smallest parts", "one part"])
@pytest.mark.parametrize("images, channels, kernels, height, width, padding", SHAPES)
def test_values_are_those_of_the_definition(images, channels, kernels, height, width, padding, part, relu, monkeypatch):
    monkeypatch.setattr(by_torch, "PART", part)
    assert not compiled.divides(channels, kernels)
    check_values(images, channels, kernels, height, width, padding, relu)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("images, channels, kernels, height, width, padding", COMPILED_SHAPES)
def test_values_of_the_compiled_kernels(images, channels, kernels, height, width, padding, threads, relu, set_threads):
    need_kernels()
    set_threads(threads)
    check_values(images, channels, kernels, height, width, padding, relu)


def test_compiled_kernels_keep_nan_where_it_is_and_read_any_layout():
    need_kernels()
    torch.manual_seed(0)
    x, weight = torch.randn(1, 16, 8, 40), torch.randn(16, 16, 3, 3)
    places = prepare_weight(weight)
    for given in (x, x.to(memory_format=torch.channels_last), torch.randn(1, 16, 40, 8).transpose(2, 3)):
        wanted = F.conv2d(given.double(), weight.double(), padding=1)
        torch.testing.assert_close(
            winograd(given, places, None, (1, 1), relu=False).double(), wanted, atol=2e-4, rtol=0
        )
    x[0, 3, 2, 2] = float("nan")
    found = winograd(x, places, None, (1, 1), relu=True).isnan().any(1)[0]
    # Of the tiles that see that place, and no other.
    assert found[:4, :4].all() and not found[:, 8:].any()


@pytest.fixture
def layer():
    """A folded 3x3 convolution with ReLU, and an image that is large enough for it."""
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 128, 3, padding=1)
    return fold_pair(conv, None, relu=True).to(memory_format=torch.channels_last), torch.randn(1, 128, 24, 24)


def by_definition(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)


@torch.inference_mode()
def test_folded_layers_take_it_and_follow_their_weights(layer, monkeypatch):
    layer, x = layer
    calls, real = [], conv_norm.winograd
    monkeypatch.setattr(conv_norm, "winograd", lambda *args, **kinds: calls.append(1) or real(*args, **kinds))
    if not conv_norm.FUSED_OPERATORS:
        pytest.skip("this torch has no oneDNN")
    add = torch.randn_like(x)
    torch.testing.assert_close(layer(x).double(), by_definition(layer, x).relu(), atol=5e-5, rtol=0)
    torch.testing.assert_close(layer(x, add).double(), (by_definition(layer, x) + add).relu(), atol=5e-5, rtol=0)
    layer(x[:, :, :6, :6])  # too few tiles
    assert len(calls) == 2
    with torch.inference_mode(False), torch.no_grad():
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x).double(), by_definition(layer, x).relu(), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_layer_without_bias(layer):
    layer, x = layer
    layer.bias = None
    wanted = F.conv2d(x.double(), layer.weight.double(), padding=1).relu()
    torch.testing.assert_close(layer(x).double(), wanted, atol=5e-5, rtol=0)


def test_copies_and_files_hold_the_weights_once(layer):
    layer, x = layer
    with torch.no_grad():
        wanted = layer(x)
        size = len(pickle.dumps(layer))
        assert size < 1.2 * 4 * 128 * 128 * 9
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(other(x), wanted)


@pytest.mark.parametrize("wrong", [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 5}])
def test_other_convolutions_do_not_take_it(wrong):
    conv = nn.Conv2d(128, 128, **{"kernel_size": 3, "padding": 1, **wrong})
    assert not choice.is_worthwhile(torch.zeros(1, 128, 40, 40), conv)
    assert choice.is_worthwhile(torch.zeros(1, 128, 40, 40), nn.Conv2d(128, 128, 3, padding=1))

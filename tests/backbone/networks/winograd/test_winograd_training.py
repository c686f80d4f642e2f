"""Training by Winograd's form: values and gradients against torch's in float64; which layers take it, and when."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import backbone
from backbone.networks import conv_norm
from backbone.networks.conv_norm import WinogradConv2d, use_winograd
from backbone.networks.folding import fold_pair
from backbone.networks.winograd import by_torch, choice, compiled, training
from backbone.networks.winograd.training import Convolution
from tests.backbone.networks.winograd.test_winograd import COMPILED_SHAPES, SHAPES, need_kernels

LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def check_values_and_gradients(images, channels, kernels, height, width, padding, layout) -> list[torch.Tensor]:
    """Compare with float64, and return the gradients."""
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
    return [tensor.grad for tensor in ours]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("part", [1, 2**24], ids=["smallest parts", "one part"])
@pytest.mark.parametrize("images, channels, kernels, height, width, padding", SHAPES)
def test_values_and_gradients_are_those_of_the_definition(
    images, channels, kernels, height, width, padding, part, layout, monkeypatch
):
    monkeypatch.setattr(by_torch, "PART", part)
    check_values_and_gradients(images, channels, kernels, height, width, padding, layout)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("images, channels, kernels, height, width, padding", COMPILED_SHAPES)
def test_values_and_gradients_of_the_compiled_kernels(
    images, channels, kernels, height, width, padding, threads, layout, set_threads
):
    need_kernels()
    set_threads(threads)
    shape = images, channels, kernels, height, width, padding
    first, again = (check_values_and_gradients(*shape, layout) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again))


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
    calls, real = [], training.convolve

    def convolve(x, *others):
        calls.append(x.shape)
        return real(x, *others)

    monkeypatch.setattr(training, "convolve", convolve)
    monkeypatch.setattr(conv_norm, "convolve", convolve)
    return calls


@pytest.fixture(params=["compiled", "by torch"])
def way(request, monkeypatch) -> str:
    """Run a test with the compiled kernels and, as where there is no compiler, without."""
    if request.param == "compiled":
        need_kernels()
    else:
        monkeypatch.setattr(compiled, "_load", lambda: (None, "taken away by a test"))
    return request.param


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_a_network_learns_the_same(norm, way, monkeypatch):
    calls = counted(monkeypatch)
    monkeypatch.setattr(choice, "LEAST_TILES_IN_TRAINING", 1)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 96, 96)
    networks = [backbone.create("resnet18", norm=norm, out_features=("res3",)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    use_winograd(networks[1])
    assert networks[1].state_dict().keys() == networks[0].state_dict().keys()
    outputs = [network.train()(images)["res3"] for network in networks]
    # conv3_x without its first layer, of stride 2; compiled, all of conv2_x too.
    conv2_x = [torch.Size([2, 64, 24, 24])] * 4 if way == "compiled" else []
    assert calls == conv2_x + [torch.Size([2, 128, 12, 12])] * 3
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-4 * float(outputs[0].detach().abs().max()))
    toward = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(toward)
    for one, other in zip(networks[0].parameters(), networks[1].parameters()):
        torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-3 * float(one.grad.abs().max()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(72, 128, 3, padding=1),
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
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, 128, 32, 32))
    assert counter.get_total_flops() == 2 * 9 * 128**2 * 32**2
    layer(torch._neg_view(torch.randn(1, 128, 32, 32)))
    layer(torch._efficientzerotensor((1, 128, 32, 32)))
    copy.deepcopy(layer).to("meta")(torch.randn(1, 128, 32, 32, device="meta"))
    layer.double()(torch.randn(1, 128, 32, 32, dtype=torch.float64))
    assert len(calls) == 1


@pytest.mark.parametrize("channels", [16, 48, 2048])
def test_wrong_channels_are_refused_as_by_torch(channels):
    layer = nn.Conv2d(32, 64, 3, padding=1)
    use_winograd(layer, in_graphs=True)
    folded = fold_pair(nn.Conv2d(32, 64, 3, padding=1), None, relu=False)
    x = torch.randn(1, channels, 64, 64).to(memory_format=torch.channels_last)
    compiled_layer = torch.compile(layer, dynamic=False, backend="eager")
    for call in (layer, torch.no_grad()(folded), compiled_layer):
        with pytest.raises(RuntimeError, match=f"to have 32 channels, but got {channels} channels"):
            call(x)
    with pytest.raises(RuntimeError, match="bias"):
        layer.bias = nn.Parameter(torch.zeros(8))
        layer(torch.randn(1, 32, 64, 64))


def test_kernels_check_what_they_are_given():
    need_kernels()
    weight, pixels, out = torch.randn(32, 16, 3, 3), torch.randn(1, 8, 8, 16), torch.empty(1, 8, 8, 32)
    places = compiled.transform_weight(weight)
    wrong = [
        (pixels[..., :8], places, None, out),
        (pixels, places[:, :1], None, out),
        (pixels, places, torch.zeros(8), out),
        (pixels[:, :7], places, None, out),
        (pixels.transpose(2, 3), places, None, out.transpose(2, 3)),
    ]
    for pixels_, places_, bias, out_ in wrong:
        with pytest.raises(ValueError, match="fit"):
            compiled.write(pixels_, places_, bias, (1, 1), out_)
    with pytest.raises(TypeError, match="float32 in memory, not torch.float64"):
        compiled.write(pixels.double(), places, None, (1, 1), out)
    with pytest.raises(TypeError, match="meta"):
        compiled.transform_weight(weight.to("meta"))


def test_no_images():
    need_kernels()
    x = torch.randn(0, 32, 8, 8, requires_grad=True)
    weight, bias = torch.randn(16, 32, 3, 3, requires_grad=True), torch.randn(16, requires_grad=True)
    Convolution.apply(x, weight, bias, (1, 1)).sum().backward()
    assert x.grad.shape == x.shape and not weight.grad.any() and not bias.grad.any()


def test_weight_gradients_have_the_same_bits_for_any_number_of_threads(set_threads):
    need_kernels()
    torch.manual_seed(0)
    pixels, values = torch.randn(2, 30, 37, 32), torch.randn(2, 30, 37, 16)
    found = []
    for threads in (1, 2, 3):
        set_threads(threads)
        found.append(compiled.weight_gradient(pixels, values, (1, 1)))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_few_channels_take_the_compiled_kernels_alone(way, monkeypatch):
    calls = counted(monkeypatch)
    layer = nn.Conv2d(16, 32, 3, padding=1)
    use_winograd(layer)
    layer(torch.randn(2, 16, 32, 32))
    assert len(calls) == (way == "compiled")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_compiled_network_learns_the_same(layout):
    need_kernels()
    torch.manual_seed(0)
    images = torch.randn(16, 3, 32, 32).contiguous(memory_format=layout)
    eager, other = (
        backbone.create("cifar_resnet20", norm="bn", num_classes=10).to(memory_format=layout) for _ in range(2)
    )
    other.load_state_dict(eager.state_dict())
    use_winograd(eager)
    use_winograd(other, in_graphs=True)
    taken = []

    def keep(graph, inputs):
        taken.extend(str(node.target) for node in graph.graph.nodes if "winograd" in str(node.target))
        return graph

    outputs = []
    for network in (eager, torch.compile(other, dynamic=False, backend=keep)):
        outputs.append(network.train()(images)["logits"])
        outputs[-1].pow(2).sum().backward()
    # 19 layers of 3x3, without the first one, of three channels, and two of stride 2; channels first, none.
    assert taken == ["resnet_detection.winograd.default"] * (16 if layout is torch.channels_last else 0)
    if layout is torch.contiguous_format:
        return
    assert torch.equal(*outputs)
    assert all(torch.equal(one.grad, two.grad) for one, two in zip(eager.parameters(), other.parameters()))


def test_operators_in_graphs_keep_their_contract():
    need_kernels()
    x, weight = torch.randn(1, 16, 9, 8, requires_grad=True), torch.randn(32, 16, 3, 3, requires_grad=True)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    bias = torch.randn(32, requires_grad=True)
    for given in ((x, weight, bias, 1, 1), (last, weight, None, 1, 1), (x, weight, None, 0, 2)):
        torch.library.opcheck(torch.ops.resnet_detection.winograd.default, given)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("trains", [False, True])
def test_an_export_has_plain_operators(trains, strict):
    need_kernels()
    network = backbone.create("cifar_resnet20", norm="bn", num_classes=10).to(memory_format=torch.channels_last)
    use_winograd(network.train(trains), in_graphs=True)
    images = torch.randn(16, 3, 32, 32).to(memory_format=torch.channels_last)
    program = torch.export.export(network, (images,), strict=strict)
    assert not any("winograd" in str(node.target) for node in program.graph.nodes)

"""Networks behave as torch's modules do: hooks, replaced layers, tracing, scripting and transforms see every layer."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import torchvision
from randomize import randomize, relative_error
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, prune
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor

import backbone
from backbone.networks import Architecture, ResNet

FAMILIES = {
    "resnet18": {},
    "resnet50": {"out_features": ("stem", "res2", "res3")},
    "resnext50_32x4d": {"out_features": ("res2",)},
    "plain18": {"num_classes": 3},
    "cifar_resnet20": {"num_classes": 3},
    "preact_resnet18": {"num_classes": 3},
    "preact_resnet50": {"out_features": ("res2",)},
    "vgg16": {"out_features": ("conv1", "conv3")},
    "vgg16_bn": {},
    "deep": {"name": "resnet18", "stem": "deep", "average_down": True, "output_stride": 8},
}


def network(kind: str = "resnet18", **keywords) -> backbone.Backbone:
    keywords = {"name": kind, "norm": "frozen_bn", **FAMILIES.get(kind, {}), **keywords}
    return randomize(backbone.create(**keywords)).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def same(found: dict, expected: dict, tolerance: float = 1e-5) -> bool:
    return list(found) == list(expected) and all(
        relative_error(found[stage], expected[stage]) < tolerance for stage in expected
    )


class Doubled(nn.Module):
    """A wrapper of a stage that changes what it gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 2 * self.inner(x)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_every_module_is_called(kind, norm, images):
    net = network(kind, norm=norm)
    expected, seen = net(images), set()
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.add(name))
    assert same(net(images), expected)
    assert seen == {name for name, _ in net.named_modules()}


@pytest.mark.parametrize("kind", FAMILIES)
def test_scripted_and_traced_by_fx(kind, images):
    net = network(kind, **({} if kind == "vgg16" else {"checkpointing": True})).train()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected = net(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(torch.jit.script(net)(images), expected)
    assert same(torch.fx.symbolic_trace(net)(images), expected)


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
@torch.no_grad()
def test_torchvisions_getters_run_the_children_in_turn(norm, images):
    peer = randomize(torchvision.models.resnet18()).eval()
    net = backbone.create("resnet18", norm=norm).eval()
    net.load_state_dict({name: value for name, value in peer.state_dict().items() if not name.startswith("fc.")})
    returned = {f"layer{index}": str(index) for index in (1, 2, 3, 4)}
    expected = IntermediateLayerGetter(peer, returned)(images)
    assert same(IntermediateLayerGetter(net, returned)(images), expected)
    assert same(create_feature_extractor(net, returned)(images), expected)
    inside = {"layer2.0.conv1": "convolution", "layer3.1.bn2": "last norm", "layer4.0.downsample.1": "shortcut"}
    assert same(create_feature_extractor(net, inside)(images), create_feature_extractor(peer, inside)(images))
    torch.manual_seed(0)
    ours = BackboneWithFPN(net, returned, [64, 128, 256, 512], 8)
    torch.manual_seed(0)
    theirs = BackboneWithFPN(peer, returned, [64, 128, 256, 512], 8)
    assert same(ours(images), theirs(images))


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_a_stage_can_be_wrapped_and_compiled(norm, images):
    net = network(norm=norm)
    expected = net(images)["res5"]
    net.layer4 = torch.compile(net.layer4, backend="eager")
    assert relative_error(net(images)["res5"], expected) < 1e-5
    net.layer4 = Doubled(net.layer4)
    net.checkpointing = True
    assert relative_error(net.train(norm == "frozen_bn")(images)["res5"], 2 * expected) < 1e-5
    gradients = []
    net.layer4.register_full_backward_hook(lambda module, inputs, outputs: gradients.append(outputs[0]))
    net(images)["res5"].sum().backward()
    assert gradients[0].shape == expected.shape


def reflected(net):
    net.layer1[0].conv1.padding_mode = "reflect"
    net.layer1[0].conv1._reversed_padding_repeated_twice = [1, 1, 1, 1]


def subclassed(net):
    class Twice(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    net.layer1[0].conv1.__class__ = Twice


def with_own_forward(net):
    conv = net.layer1[0].conv1
    conv.forward = lambda x: 2 * nn.Conv2d.forward(conv, x)


def with_norms_forward(net):
    norm = net.layer1[0].bn1
    norm.forward = lambda x: 2 * backbone.FrozenBatchNorm2d.forward(norm, x)


def hooked(net):
    net.layer1[0].bn1.register_forward_hook(lambda module, inputs, output: 2 * output)


def pre_hooked(net):
    net.layer1[0].conv1.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def parametrised(net):
    parametrizations.weight_norm(net.layer1[0].conv1)
    with torch.no_grad():
        net.layer1[0].conv1.parametrizations.weight.original0.mul_(2)


@pytest.mark.parametrize(
    "change", [reflected, subclassed, with_own_forward, with_norms_forward, hooked, pre_hooked, parametrised]
)
@torch.no_grad()
def test_a_changed_layer_takes_part(change, images):
    net = network()
    expected_of = torchvision.models.resnet18().eval()
    change(net)
    for index in (1, 2, 3, 4):
        for block, peer in zip(getattr(net, f"layer{index}"), getattr(expected_of, f"layer{index}")):
            # The blocks of torchvision, on our layers.
            for name, child in block.named_children():
                setattr(peer, name, child)
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    expected = expected_of.layer2(expected_of.layer1(x))
    plain = network()(images)["res3"]
    assert relative_error(net(images)["res3"], expected) < 1e-5
    assert relative_error(plain, expected) > 1e-3


def test_pruned_and_normalised_weights_train(images):
    net = network().train()
    prune.l1_unstructured(net.layer1[0].conv1, "weight", 0.5)
    parametrizations.weight_norm(net.layer2[0].conv1)
    optimizer = torch.optim.SGD(net.parameters(), 1e-5)
    for _ in range(3):
        optimizer.zero_grad()
        net(images)["res5"].square().mean().backward()
        optimizer.step()
    assert (net.eval().layer1[0].conv1.weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert same(backbone.fold(net)(images), net(images), 1e-4)


def test_transforms_of_torch_func(images):
    net = network(out_features=("res2",)).double()
    images, parameters = images.double(), dict(net.named_parameters())

    def loss(parameters, image):
        return functional_call(net, parameters, (image[None],))["res2"].square().mean()

    per_sample = vmap(grad(loss), in_dims=(None, 0))(parameters, images)
    for index, image in enumerate(images):
        net.zero_grad()
        net(image[None])["res2"].square().mean().backward()
        assert relative_error(per_sample["layer1.0.conv1.weight"][index], net.layer1[0].conv1.weight.grad) < 1e-10
    tangent = torch.randn_like(images)
    _, expected = jvp(lambda x: net(x)["res2"], (images,), (tangent,))
    with forward_ad.dual_level():
        dual = net(forward_ad.make_dual(images, tangent))["res2"]
        assert relative_error(forward_ad.unpack_dual(dual).tangent, expected) < 1e-10


def test_second_derivatives(images):
    results = []
    for listens in (False, True):
        net = network(out_features=("res2",)).double()
        if listens:
            for module in net.modules():
                module.register_forward_hook(lambda *_: None)
        x = images.double().requires_grad_()
        (first,) = torch.autograd.grad(net(x)["res2"].square().sum(), x, create_graph=True)
        first.square().sum().backward()
        results.append((x.grad, net.conv1.weight.grad, net.layer1[1].conv2.weight.grad))
    assert all(relative_error(*pair) < 1e-9 for pair in zip(*results))


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8])
def test_images_of_another_dtype_are_refused_as_with_bn(dtype, learns, images):
    messages = []
    for norm in ("bn", "frozen_bn"):
        with torch.set_grad_enabled(learns), pytest.raises(RuntimeError) as raised:
            network(norm=norm)(images.to(dtype))
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_compiled_and_exported_whole(images):
    net = network(out_features=("res2",))
    expected = net(images)
    assert same(torch.compile(net, backend="eager", fullgraph=True)(images), expected)
    exported = torch.export.export(net, (images,))
    assert same(exported.module()(images), expected)
    assert all(str(node.target).startswith("aten.") for node in exported.graph.nodes if node.op == "call_function")


def test_copied_and_pickled(images):
    net = network()
    expected = net(images)
    assert same(copy.deepcopy(net)(images), expected)
    assert same(pickle.loads(pickle.dumps(net))(images), expected)


@pytest.mark.parametrize("wrong", [("res6",), "res5", (), ("logits",), [5]])
def test_wrong_outputs_are_refused_when_they_are_set(wrong):
    net = network(out_features=("res4", "res3"))
    with pytest.raises(backbone.ArchitectureError, match="stem, res2, res3, res4"):
        net.out_features = wrong
    assert net.out_features == ("res3", "res4")


@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet20", "preact_resnet18", "vgg16_bn"])
def test_every_parameter_gets_a_gradient_where_logits_are_left_out(name):
    net = backbone.create(name, num_classes=5, out_features=(backbone.create(name).stage_names[2],)).train()
    next(iter(net(torch.randn(2, 3, 32, 32)).values())).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_an_architecture_of_ones_own(images):
    table = Architecture((1, 1, 2), "basic", (8, 16, 32))
    net = ResNet(table, num_classes=4, norm="frozen_bn").eval()
    assert net(images)["logits"].shape == (2, 4)
    assert [info.channels for info in net.feature_info.values()] == [8, 8, 16, 32, 4]
    assert same(backbone.fold(net)(images), net(images))
    assert same(backbone.create(table, num_classes=4).eval()(images), net(images), 10)
    with pytest.raises(backbone.ArchitectureError, match="preact"):
        ResNet("preact_resnet18")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"blocks": (2, 0, 2)}, "blocks must be whole numbers from 1 on"),
        ({"blocks": 2}, "blocks must be"),
        ({"blocks": ()}, "blocks must be"),
        ({"blocks": (1, 1)}, "widths must be 2 whole numbers"),
        ({"widths": (8, 16, 2.5)}, "widths must be 3 whole numbers"),
        ({"block": "conv"}, "block must be one of basic, bottleneck, not 'conv'"),
        ({"family": "resnext"}, "family must be one of resnet, preact, vgg"),
        ({"stem": "deep"}, "stem must be one of conv7, conv3"),
        ({"shortcut": "D"}, "shortcut must be one of A, B, C, None"),
        ({"family": "preact", "shortcut": None}, "shortcut must be one of A, B, C, not None"),
        ({"groups": 2}, "groups must be 1 where blocks are no bottlenecks, not 2"),
        ({"block": "bottleneck", "groups": 0}, "groups must be a whole number"),
        ({"block": "bottleneck", "base_width": 4}, "base_width must be at least 64 / 8"),
        ({"batch_norm": False}, "batch_norm must be True"),
    ],
)
def test_an_architecture_that_cannot_be_built(values, says):
    with pytest.raises(backbone.ArchitectureError, match=says):
        Architecture(**{"blocks": (1, 1, 2), "block": "basic", "widths": (8, 16, 32), **values})


def test_an_architecture_from_lists():
    table = Architecture([1, 1, 2], "basic", [8, 16, 32])
    assert table == Architecture((1, 1, 2), "basic", (8, 16, 32)) and hash(table)

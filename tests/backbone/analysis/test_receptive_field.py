"""Theoretical receptive fields against the pixels that a gradient reaches; effective ones inside them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import backbone
from backbone.analysis import analyse, measure_effective_fields
from backbone.analysis.fields import Field


def linear(name: str, **keywords) -> backbone.Backbone:
    """A network in which every pixel of the field adds to the cell: positive weights, nothing cut by a ReLU."""
    net = backbone.create(name, **keywords).double().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
    return net


def reached(feature: torch.Tensor, images: torch.Tensor) -> int:
    """Side of the square of input pixels that the cell in the middle depends on, whatever their values."""
    height, width = feature.shape[2:]
    (gradient,) = torch.autograd.grad(feature[0, :, height // 2, width // 2].sum(), images, retain_graph=True)
    rows, columns = (gradient[0].abs().sum(0).sum(axis).nonzero() for axis in (1, 0))
    assert len(rows) == len(columns)
    assert rows[0] > 0 and rows[-1] < images.shape[2] - 1, "the image cuts the field"
    return int(rows[-1] - rows[0]) + 1


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("resnet18", {"out_features": ["stem", "res2", "res3"]}),
        ("resnet50", {"out_features": ["res2", "res3"], "stem": "deep", "average_down": True}),
        ("resnet50", {"out_features": ["res2", "res3"], "stride_in_1x1": True, "ceil_pool": True}),
        ("resnet18", {"out_features": ["res3", "res4"], "output_stride": 8, "shortcut": "A"}),
        ("cifar_resnet20", {"out_features": ["stem", "res2", "res3", "res4"]}),
        ("preact_resnet18", {"out_features": ["res2", "res3"]}),
        ("plain18", {"out_features": ["res3"]}),
    ],
)
def test_equals_what_a_gradient_reaches(name, keywords):
    report = analyse(name, num_classes=None, **keywords)
    fields = {stage.name: stage.field for stage in report.stages}
    net = linear(name, **keywords)
    side = max(fields.values()) + 48
    # Max pooling passes the gradient of one pixel: average pooling of the same window passes all.
    if hasattr(net, "maxpool"):
        pool = net.maxpool
        net.maxpool = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
    images = torch.rand(1, 3, side, side, dtype=torch.double).requires_grad_()
    for stage, feature in net(images).items():
        assert reached(feature, images) == fields[stage], stage


def test_published_sizes():
    """VGG-16's conv5_3 sees 196 pixels; CIFAR networks of n blocks a stage see 81 (n = 3) and more."""
    fields = [stage.field for stage in analyse("vgg16").stages]
    assert fields == [5, 14, 40, 92, 196, None]
    assert analyse("resnet18").field == 435
    assert analyse("cifar_resnet20").field == 81


def test_fields_by_hand():
    stem = Field().window(7, 2, 3).window(3, 2, 1)
    assert (stem, stem.size) == (Field(-5, 5, 4), 11)
    assert Field().window(3, 1, 2, dilation=2) == Field(-2, 2, 1)
    # A pooling of even size and a convolution of odd size do not share a centre.
    assert Field().window(2, 2, 0).joined(Field().window(3, 2, 1)) == Field(-1, 1, 2)


def test_effective_fields_lie_within_the_theoretical():
    fields = {stage.name: stage.field for stage in analyse("cifar_resnet56").stages}
    effective = measure_effective_fields("cifar_resnet56", size=(96, 96), samples=2)
    assert list(effective) == ["stem", "res2", "res3", "res4"]
    assert effective["stem"] == 3
    sides = list(effective.values())
    assert sides == sorted(sides)
    for stage in ("res2", "res3", "res4"):
        assert 3 < effective[stage] < 0.8 * min(fields[stage], 96)
    assert effective == measure_effective_fields("cifar_resnet56", size=(96, 96), samples=2)


def test_a_plain_net_has_a_wider_effective_field():
    """Luo et al. (arXiv 1701.04128), Sec. 2.2: skip connections make it smaller."""
    options = {"size": (96, 96), "samples": 2}
    plain, residual = (measure_effective_fields(name, **options) for name in ("cifar_plain56", "cifar_resnet56"))
    assert plain["res3"] > residual["res3"]

"""Parameters, multiply-adds and activations against fvcore's counters, the paper's figures and the networks."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, parameter_count

import backbone
from backbone.analysis import analyse, network_table, summary_table, to_json
from backbone.common.errors import ArchitectureError

NETWORKS = ["resnet18", "resnet50", "cifar_resnet20", "vgg16", "vgg16_bn", "preact_resnet18"]
# The same code as their shorter relatives, only longer.
DEEPEST = ("cifar_resnet1202", "cifar_preact_resnet1001", "preact_resnet200")


def classifier(name: str, **keywords) -> backbone.Backbone:
    return backbone.create(name, num_classes=backbone.ARCHITECTURES[name].num_classes, **keywords).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_fvcore(name):
    size, batch = (64, 96), 2
    report = analyse(name, size=size, batch_size=batch, out_features=["logits"])
    net = classifier(name, out_features=["logits"])
    images = torch.zeros(batch, 3, *size)
    macs = FlopCountAnalysis(net, images).unsupported_ops_warnings(False).by_operator()
    activations = ActivationCountAnalysis(net, images).unsupported_ops_warnings(False).by_operator()
    assert set(activations) == {"conv", "linear"}
    assert report.total("macs") == macs["conv"] + macs["linear"]
    assert report.total("activations") == sum(activations.values())
    assert report.total("parameters") == parameter_count(net)[""]


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet50"])
def test_stages_equal_fvcores_modules(name):
    """Where each stage of blocks is one module, fvcore counts it apart."""
    report = analyse(name, size=(64, 64))
    images = torch.zeros(1, 3, 64, 64)
    counter = FlopCountAnalysis(classifier(name), images).unsupported_ops_warnings(False)
    by_module = counter.by_module_and_operator()
    for stage in report.stages[1:-1]:
        assert stage.macs == by_module[f"layer{int(stage.name[-1]) - 1}"]["conv"]


@pytest.mark.parametrize("name", [name for name in backbone.list_backbones() if name not in DEEPEST])
def test_stages_add_up_and_have_the_features_shapes(name):
    report = analyse(name, batch_size=2)
    with torch.device("meta"):
        net, images = classifier(name), torch.empty(2, 3, *report.input_size)
    with torch.no_grad():
        features = net(images)
    assert report.total("parameters") == sum(parameter.numel() for parameter in net.parameters())
    assert [stage.name for stage in report.stages] == list(net.feature_info)
    by_name = {stage.name: stage for stage in report.stages}
    for stage, feature in features.items():
        assert by_name[stage].output == feature.shape[1:]
        assert (by_name[stage].stride or 0) == net.feature_info[stage].stride
    layers = [module for module in net.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
    assert report.total("layers") == len(layers)
    assert (report.stages[-1].field, report.stages[-1].stride) == (None, None)


# PAPER: multiply-adds with a 224 x 224 image, computed for both places of the stride; Table 1 states 3.8, 7.6 and 11.3.
@pytest.mark.parametrize(
    ("depth", "in_1x1", "in_3x3"), [(50, 3.858, 4.089), (101, 7.570, 7.801), (152, 11.282, 11.514)]
)
def test_macs_of_the_paper(depth, in_1x1, in_3x3):
    for stride_in_1x1, expected in ((True, in_1x1), (False, in_3x3)):
        report = analyse(f"resnet{depth}", stride_in_1x1=stride_in_1x1)
        assert round(report.total("macs") / 1e9, 3) == expected


def test_parts_of_a_network():
    report = analyse("resnet50", size=(65, 97), out_features=["res3"], num_classes=None, norm="frozen_bn")
    assert [(stage.name, stage.output) for stage in report.stages] == [
        ("stem", (64, 17, 25)),
        ("res2", (256, 17, 25)),
        ("res3", (512, 9, 13)),
    ]
    assert report.keywords == {"num_classes": None, "out_features": ["res3"], "norm": "frozen_bn"}
    dilated = analyse("resnet50", output_stride=8, num_classes=None)
    assert [stage.stride for stage in dilated.stages] == [4, 4, 8, 8, 8]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet10", {}, "unknown backbone 'resnet10'; did you mean 'resnet1"),
        ("resnet50", {"size": (0, 32)}, "1 x 3 x 0 x 32: each must be at least 1"),
        ("resnet50", {"batch_size": 0}, "0 x 3 x 224 x 224"),
        ("resnet50", {"depth": 3}, "unknown keyword 'depth'"),
        ("vgg16", {"size": (31, 64)}, "images of 31x64 pixels are too small; the smallest side is 32"),
        ("vgg16", {"size": (15, 64), "num_classes": None}, "too small; the smallest side is 16"),
        ("resnet18", {"size": (2, 2), "ceil_pool": True}, "resnet18: images of 2x2 pixels are too small"),
    ],
)
def test_mistakes(name, options, said):
    with pytest.raises(ArchitectureError) as caught:
        analyse(name, **options)
    assert said in str(caught.value)


def test_the_smallest_side_is_that():
    assert analyse("vgg16", size=(32, 32)).stages[-1].output == (1000,)


def test_tables():
    reports = [analyse(name, size=(64, 64)) for name in ("resnet18", "cifar_resnet20")]
    text = network_table(reports[0], {"res5": 100.0})
    lines = text.splitlines()
    assert [line.split()[1] for line in lines[2:9]] == ["stem", "res2", "res3", "res4", "res5", "logits", "total"]
    assert "11.690" in lines[8] and "100.000" in lines[6] and lines[-1].startswith("MiB: weights 44.6, inference ")
    assert len(summary_table(reports).splitlines()) == 4
    values = to_json(reports[0])
    assert values["total"]["parameters"] == 11_689_512
    assert sum(stage["macs"] for stage in values["stages"]) == values["total"]["macs"]

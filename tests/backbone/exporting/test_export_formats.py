"""Each kind of file in its own runtime: what it computes, for which images, and what it says of itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from randomize import randomize, relative_error

import backbone
from backbone.exporting import export, load_exported
from backbone.weights import Preprocessing

MSRA = Preprocessing("BGR", 255, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
IMAGENET = Preprocessing("RGB", 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL = (64, 48)
KINDS = {
    ".onnx": ("ONNX", "onnxruntime"),
    ".pt2": ("torch.export", "torch"),
    ".torchscript": ("TorchScript", "torch"),
    ".ts": ("TorchScript", "torch"),
    ".xml": ("OpenVINO", "openvino"),
}


def network(name: str = "resnet18", preprocessing: Preprocessing | None = None, **keywords: object):
    torch.manual_seed(0)
    net = randomize(backbone.create(name, **keywords)).eval()
    net.preprocessing = preprocessing
    return net


def agrees(file, source, images: torch.Tensor, prepared: torch.Tensor | None = None) -> None:
    found = load_exported(file)(images)
    with torch.no_grad():
        expected = source(images if prepared is None else prepared)
    assert list(found) == list(expected)
    for stage, value in expected.items():
        assert relative_error(found[stage], value) < 1e-5, stage


@pytest.mark.parametrize("suffix", KINDS)
def test_any_number_of_images_of_any_size(suffix, tmp_path, capfd):
    source = network(out_features=("stem", "res3", "res4"), norm="frozen_bn")
    before = {name: value.clone() for name, value in source.state_dict().items()}
    report = export(source, tmp_path / f"a{suffix}", input_size=SMALL)
    assert capfd.readouterr() == ("", ""), "exporters must not talk"
    kind, runtime = KINDS[suffix]
    assert report.format == kind and report.runtime.startswith(runtime + " ")
    assert set(report.differences) == {"1x3x64x48", "2x3x75x67"}
    assert all(set(stages) == {"stem", "res3", "res4"} for stages in report.differences.values())
    assert 0 <= report.largest_difference < 1e-5
    assert report.files == {file: file.stat().st_size for file in [report.path, *set(report.files) - {report.path}]}
    assert set(report.files) == set(tmp_path.iterdir())
    json.dumps(report.to_dict())
    # Maps of one pixel, of odd sizes, and large ones.
    for shape in ((1, 3, 32, 32), (3, 3, 61, 83), (2, 3, 128, 97)):
        agrees(report.path, source, torch.randn(shape))
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".xml"])
def test_static(suffix, tmp_path):
    source = network(out_features=("res2",))
    report = export(source, tmp_path / f"a{suffix}", input_size=SMALL, batch_size=2, dynamic=False)
    assert list(report.differences) == ["2x3x64x48"]
    assert report.metadata["input"]["shape"] == [2, 3, 64, 48]
    agrees(report.path, source, torch.randn(2, 3, 64, 48))
    with pytest.raises(Exception, match=r"(?i)shape|dimension|guard|expected"):
        load_exported(report.path)(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("suffix", "preprocessing"),
    [(".onnx", MSRA), (".pt2", MSRA), (".ts", MSRA), (".xml", MSRA), (".ts", IMAGENET), (".onnx", IMAGENET)],
    ids=["onnx-bgr", "pt2-bgr", "ts-bgr", "xml-bgr", "ts-rgb", "onnx-rgb"],
)
def test_preprocessing_in_the_graph(suffix, preprocessing, tmp_path):
    source = network(preprocessing=preprocessing, out_features=("res2",))
    report = export(source, tmp_path / f"a{suffix}", input_size=SMALL, bake_preprocessing=True)
    taken = report.metadata["input"]
    assert (taken["dtype"], taken["channel_order"], taken["baked_preprocessing"]) == ("uint8", "RGB", True)
    pixels = torch.randint(256, (2, 3, 50, 40), dtype=torch.uint8)
    # Written out, not through Preprocessing.
    order = pixels.flip(1).float() if preprocessing is MSRA else pixels.float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    agrees(report.path, source, pixels, (order - mean) / std)


# Each network by one of them, and all by both among the slow tests.
BY_DEFAULT = ("dynamo", "torchscript", "dynamo")
FORMS = [
    {"norm": "gn", "output_stride": 8, "out_features": ("res3", "res4")},
    {"shortcut": "A", "num_classes": 5, "out_features": ("res2", "logits")},
    {"stem": "deep", "average_down": True, "ceil_pool": True, "out_features": ("res3",)},
]


@pytest.mark.parametrize(
    ("exporter", "keywords"),
    [
        pytest.param(
            exporter, keywords, marks=[] if exporter == quick else pytest.mark.slow, id=f"{exporter}-{keywords}"
        )
        for keywords, quick in zip(FORMS, BY_DEFAULT)
        for exporter in ("dynamo", "torchscript")
    ],
)
def test_both_exporters(exporter, keywords, tmp_path):
    source = network(**keywords)
    report = export(source, tmp_path / "a.onnx", input_size=SMALL, exporter=exporter)
    assert report.exporter == exporter and report.notes == []
    for shape in ((1, 3, 64, 64), (2, 3, 53, 79)):
        agrees(report.path, source, torch.randn(shape))


@pytest.mark.parametrize(
    ("suffix", "name", "keywords"),
    [
        (".pt2", "cifar_resnet20", {"num_classes": 10}),
        (".pt2", "resnet18", {"norm": "gn", "output_stride": 8, "out_features": ("res4",)}),
        (".pt2", "preact_resnet18", {"stem": "deep", "average_down": True, "out_features": ("res3",)}),
        (".ts", "preact_resnet18", {"num_classes": 4, "out_features": ("logits",)}),
        (".ts", "resnet18", {"norm": "gn", "output_stride": 8}),
        (".xml", "cifar_resnet20", {"num_classes": 10, "norm": "gn"}),
    ],
    ids=str,
)
def test_kinds_of_networks(suffix, name, keywords, tmp_path):
    source = network(name, **keywords)
    report = export(source, tmp_path / f"a{suffix}", input_size=SMALL)
    agrees(report.path, source, torch.randn(3, 3, 71, 90))


def test_the_graph_holds_nothing_superfluous(tmp_path):
    """The convolutions of the stem and 7 blocks with BN in them, ReLU, additions, one pooling: all can be fused."""
    from collections import Counter

    import onnx

    for exporter in ("dynamo", "torchscript"):
        source = network("resnet50", out_features=("res2", "res3"))
        export(source, tmp_path / "a.onnx", input_size=SMALL, exporter=exporter)
        graph = onnx.load(tmp_path / "a.onnx").graph
        operators = Counter(node.op_type for node in graph.node)
        assert operators == {"Conv": 24, "Relu": 22, "Add": 7, "MaxPool": 1}, exporter
        assert {tensor.data_type for tensor in graph.initializer} == {onnx.TensorProto.FLOAT}
        assert [value.name for value in graph.output] == ["res2", "res3"]
        axes = [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
        assert axes == ["batch", 3, "height", "width"]
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)


def test_opset(tmp_path):
    for exporter in ("dynamo", "torchscript"):
        report = export(
            network(out_features=("stem",)), tmp_path / "a.onnx", input_size=SMALL, opset=18, exporter=exporter
        )
        assert report.opset == 18


@pytest.mark.parametrize(
    ("suffix", "preprocessing"),
    [(".onnx", MSRA), (".pt2", MSRA), (".ts", MSRA), (".xml", MSRA), (".ts", None)],
    ids=["onnx", "pt2", "ts", "xml", "unknown"],
)
def test_metadata(suffix, preprocessing, tmp_path):
    source = network("resnet50", preprocessing, out_features=("stem", "res2"), stride_in_1x1=True)
    report = export(source, tmp_path / f"a{suffix}", input_size=SMALL)
    found = load_exported(report.path).metadata
    assert found == report.metadata
    assert found["architecture"] == "resnet50" and found["stride_in_1x1"] is True and found["ceil_pool"] is False
    assert found["stages"] == {"stem": {"channels": 64, "stride": 4}, "res2": {"channels": 256, "stride": 4}}
    assert found["preprocessing"] == (preprocessing.to_dict() if preprocessing else None)
    assert found["input"] == {
        "name": "images",
        "layout": "NCHW",
        "dtype": "float32",
        "channel_order": "BGR" if preprocessing else None,
        "baked_preprocessing": False,
        "shape": [None, 3, None, None],
    }


def test_metadata_as_the_runtimes_themselves_show_it(tmp_path):
    import onnxruntime
    import openvino

    source = network(preprocessing=IMAGENET, out_features=("stem",))
    export(source, tmp_path / "a.onnx", input_size=SMALL)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map["backbone_metadata"]
    assert Preprocessing.from_dict(json.loads(text)["preprocessing"]) == IMAGENET
    export(source, tmp_path / "a.xml", input_size=SMALL)
    model = openvino.Core().read_model(tmp_path / "a.xml")
    assert json.loads(model.get_rt_info("backbone_metadata").astype(str))["architecture"] == "resnet18"
    export(source, tmp_path / "a.ts", input_size=SMALL)
    extra = {"backbone_metadata": ""}
    torch.jit.load(tmp_path / "a.ts", _extra_files=extra)
    assert json.loads(extra["backbone_metadata"])["stages"] == {"stem": {"channels": 64, "stride": 4}}


@pytest.mark.parametrize(("suffix", "layout"), [(".safetensors", None), (".pth", "timm"), (".pkl", "detectron2")])
def test_weights_alone(suffix, layout, tmp_path):
    source = network(preprocessing=IMAGENET, out_features=("res2",), norm="frozen_bn")
    report = export(source, tmp_path / f"a{suffix}", input_size=SMALL, layout=layout)
    assert report.largest_difference == 0 and report.format == f"weights, {layout or 'torchvision'} layout"
    target = backbone.create("resnet18", out_features=("res2",), norm="frozen_bn")
    backbone.load_weights(target, report.path)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())
    assert report.metadata["architecture"] == "resnet18" and target.preprocessing == IMAGENET


def test_a_folded_copy_and_a_network_in_training(tmp_path):
    source = network(out_features=("res2",))
    images = torch.randn(1, 3, 64, 48)
    export(backbone.fold(source), tmp_path / "a.ts", input_size=SMALL)
    agrees(tmp_path / "a.ts", source, images)
    source.train()
    export(source, tmp_path / "b.ts", input_size=SMALL)
    assert source.training and source.bn1.weight.requires_grad
    agrees(tmp_path / "b.ts", source.eval(), images)


def test_large_weights_of_half_precision(tmp_path):
    """A bfloat16 network goes out in float32: its weights are what they are."""
    source = network(out_features=("res2",)).bfloat16()
    export(source, tmp_path / "a.onnx", input_size=SMALL, exporter="torchscript")
    agrees(tmp_path / "a.onnx", source.float(), torch.randn(1, 3, 64, 48))
    assert np.isfinite(load_exported(tmp_path / "a.onnx")(torch.randn(1, 3, 40, 40))["res2"]).all()

"""What a user gets wrong, and files that go wrong: one line, and nothing half-written beside the former file."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from randomize import randomize
from torch import nn

import backbone
from backbone.common.errors import ExportError
from backbone.exporting import export, formats, load_exported, open_network, quiet, select_outputs
from backbone.weights import Preprocessing

SMALL = (40, 48)
IMAGENET = Preprocessing("RGB", 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def network(name: str = "resnet18", **keywords: object):
    torch.manual_seed(0)
    return randomize(backbone.create(name, **{"out_features": ("res2",), **keywords})).eval()


def refused(said: str, *arguments: object, error: type[Exception] = ExportError, **keywords: object) -> str:
    with pytest.raises(error) as caught:
        export(*arguments, **{"input_size": SMALL, **keywords})
    message = str(caught.value)
    assert said in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.onx", "unknown suffix '.onx'; did you mean '.onnx'?; export writes .onnx, .pt2"),
        ("a", "unknown suffix ''; export writes"),
        ("a.tflite", "unknown suffix '.tflite'"),
    ],
)
def test_unknown_suffix(name, said, tmp_path):
    refused(said, network(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"input_size": 224}, "input_size must be a height and a width"),
        ({"input_size": (0, 5)}, "all above 0"),
        ({"input_size": (5, 5.0)}, "not (5, 5.0) and 1"),
        ({"batch_size": 0}, "batch_size a number"),
        ({"exporter": "caffe2"}, "exporter must be auto, dynamo or torchscript; not 'caffe2'"),
        ({"bake_preprocessing": True}, "it is not known what resnet18 wants"),
        ({"opset": 2}, "torchscript exporter cannot write it"),
        ({"opset": 5, "exporter": "dynamo"}, "dynamo exporter cannot write it: it gives opset"),
        ({"layout": "timm"}, "layout is for weights alone"),
    ],
    ids=str,
)
def test_keywords(keywords, said, tmp_path):
    refused(said, network(), tmp_path / "a.onnx", **keywords)
    assert not list(tmp_path.iterdir())


def test_keywords_that_the_file_does_not_have(tmp_path):
    for name in ("a.ts", "a.pt2"):
        refused("are for .onnx and .xml", network(), tmp_path / name, exporter="dynamo")
        refused("are for .onnx and .xml", network(), tmp_path / name, opset=18)
    for keywords in ({"opset": 18}, {"exporter": "dynamo"}, {"bake_preprocessing": True}):
        refused("holds weights alone", network(), tmp_path / "a.safetensors", **keywords)
    refused("did you mean 'timm'", network(), tmp_path / "a.pth", layout="tim", error=backbone.WeightsError)
    assert not list(tmp_path.iterdir())


def test_other_networks(tmp_path):
    refused("not Linear", nn.Linear(1, 1), tmp_path / "a.onnx")
    refused("not one folded to torch.bfloat16", backbone.fold(network(), dtype=torch.bfloat16), tmp_path / "a.onnx")
    refused("is needed", backbone.fold(network()), tmp_path / "a.pth", error=backbone.WeightsError)


def test_images_that_are_too_small(tmp_path):
    source = backbone.create("vgg16", out_features=("conv5",)).eval()
    for suffix in (".onnx", ".ts"):
        said = "vgg16 cannot take images of 1x3x8x8"
        refused(said, source, tmp_path / f"a{suffix}", input_size=(8, 8), dynamic=False)
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite(tmp_path):
    source = network()
    with torch.no_grad():
        source.conv1.weight.fill_(float("nan"))
    refused("is not finite", source, tmp_path / "a.onnx", exporter="torchscript")
    assert not list(tmp_path.iterdir())


def test_a_missing_package(tmp_path, monkeypatch):
    there = quiet.is_installed
    monkeypatch.setattr(quiet, "is_installed", lambda name: name not in ("openvino", "onnxruntime") and there(name))
    refused("OpenVINO needs openvino: pip install openvino", network(), tmp_path / "a.xml")
    refused("pip install onnxruntime", network(), tmp_path / "a.onnx")
    with pytest.raises(ExportError, match="pip install openvino"):
        load_exported(tmp_path / "a.xml")


def test_without_onnxscript_the_other_exporter_writes(tmp_path, monkeypatch):
    from backbone.exporting import onnx_file

    monkeypatch.setattr(onnx_file, "is_installed", lambda name: False)
    report = export(network(), tmp_path / "a.onnx", input_size=SMALL)
    assert report.exporter == "torchscript" and "onnxscript is not installed" in report.notes[0]
    monkeypatch.setattr(quiet, "is_installed", lambda name: name != "onnxscript")
    refused("needs onnxscript: pip install onnxscript", network(), tmp_path / "b.onnx", exporter="dynamo")


def test_an_exporter_that_fails_gives_way_to_the_other(tmp_path, monkeypatch):
    real = torch.onnx.export

    def broken(*arguments: object, dynamo: bool, **keywords: object):
        if dynamo:
            raise RuntimeError("\x1b[96mno\x1b[0m such operator\nand more")
        return real(*arguments, dynamo=dynamo, **keywords)

    monkeypatch.setattr(torch.onnx, "export", broken)
    report = export(network(), tmp_path / "a.onnx", input_size=SMALL)
    assert report.exporter == "torchscript"
    assert "because: a.onnx: torch's dynamo exporter cannot write it: RuntimeError: no such operator" in report.notes[0]
    refused("no such operator", network(), tmp_path / "b.onnx", exporter="dynamo")
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


# -- a file that computes something else


def scaled(writer):
    """A writer whose file computes a hundredth more than the network."""

    def write(graph, path, options, metadata):
        with torch.no_grad():
            next(graph.parameters()).mul_(1.01)
        writer(graph, path, options, metadata)

    return write


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".ts", ".xml"])
def test_what_differs_is_not_kept(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    for file in (path, path.with_suffix(".bin")):
        file.write_bytes(b"precious")
    kind = formats.FORMATS[suffix]
    monkeypatch.setitem(formats.FORMATS, suffix, replace(kind, write=scaled(kind.write)))
    message = refused("differs from the network in res2", network(), path)
    assert "nothing was kept" in message and str(path) in message
    assert all(file.read_bytes() == b"precious" for file in tmp_path.iterdir())
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "a.bin"}
    report = export(network(), path, input_size=SMALL, tolerance=0.1)
    assert 1e-3 < report.largest_difference < 0.1


def test_a_file_for_one_size_alone_is_not_kept_as_dynamic(tmp_path, monkeypatch):
    kind = formats.FORMATS[".onnx"]

    def write(graph, path, options, metadata):
        kind.write(graph, path, replace(options, dynamic=False), metadata)

    monkeypatch.setitem(formats.FORMATS, ".onnx", replace(kind, write=write))
    refused("images of 2x3x51x67, fails", network(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_metadata_that_is_lost(tmp_path, monkeypatch):
    kind = formats.FORMATS[".ts"]

    def write(graph, path, options, metadata):
        kind.write(graph, path, options, {})

    monkeypatch.setitem(formats.FORMATS, ".ts", replace(kind, write=write))
    refused("metadata did not come back", network(), tmp_path / "a.ts")
    assert not list(tmp_path.iterdir())


def test_weights_that_come_back_changed(tmp_path, monkeypatch):
    from backbone.weights import save

    real = save.WRITERS[".safetensors"]

    def lossy(path, tensors, text, container):
        real(
            path, {name: value * 1.1 if name == "conv1.weight" else value for name, value in tensors.items()}, text, ""
        )

    monkeypatch.setitem(save.WRITERS, ".safetensors", lossy)
    refused("differs from the network", network(), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# -- folders and disks


def test_a_missing_folder_is_made_and_not_left_empty(tmp_path):
    path = tmp_path / "new" / "deep" / "a.ts"
    refused("all above 0", network(), path, input_size=(0, 1))
    refused("unknown suffix", network(), path.with_suffix(".x"))
    kept = {"tolerance": -1.0}
    refused("nothing was kept", network(), path, **kept)
    assert not list(tmp_path.iterdir())
    assert export(network(), path, input_size=SMALL).path == path
    assert [file.name for file in path.parent.iterdir()] == ["a.ts"]


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    refused("cannot be written", network(), tmp_path / "file" / "a.ts", error=backbone.RunError)
    (tmp_path / "a.ts").mkdir()
    refused("cannot be written", network(), tmp_path / "a.ts", error=backbone.RunError)
    assert sorted(os.listdir(tmp_path)) == ["a.ts", "file"]


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".safetensors"])
def test_a_full_disk(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"precious")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused("No space left on device", network(), path, error=backbone.RunError)
    assert path.read_bytes() == b"precious"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# -- opening


def test_opening_what_is_none(tmp_path):
    with pytest.raises(ExportError, match="no such file"):
        load_exported(tmp_path / "a.onnx")
    with pytest.raises(ExportError, match=r"load_weights reads it"):
        load_exported(tmp_path / "a.safetensors")
    with pytest.raises(ExportError, match="unknown suffix"):
        load_exported(tmp_path / "a.txt")
    for suffix in formats.FORMATS:
        (tmp_path / f"a{suffix}").write_bytes(b"nothing of the kind")
        with pytest.raises(ExportError, match="does not take it") as caught:
            load_exported(tmp_path / f"a{suffix}")
        assert "\n" not in str(caught.value)


def test_stages_of_a_network_that_is_built():
    net = network(out_features=("res4",))
    select_outputs(net, ["res3", "stem"])
    assert list(net(torch.randn(1, 3, 32, 32))) == ["stem", "res3"]
    with pytest.raises(ExportError, match="was built without res5; it can give stem, res2, res3, res4"):
        select_outputs(net, ["res5"])


def test_networks_out_of_weights_files(tmp_path):
    source = network("resnet18", out_features=None, num_classes=7, shortcut="A")
    source.preprocessing = IMAGENET
    backbone.save_weights(source, tmp_path / "a.npz")
    images = torch.randn(1, 3, 40, 40)
    for keywords, stages in (
        ({}, ["res2", "res3", "res4", "res5"]),
        ({"out_features": ["logits", "res2"]}, ["res2", "logits"]),
        ({"num_classes": 7}, ["res2", "res3", "res4", "res5", "logits"]),
    ):
        net, notes = open_network(tmp_path / "a.npz", **keywords)
        found, expected = net.eval()(images), source(images)
        assert list(found) == stages and net.preprocessing == IMAGENET and notes == []
        assert all(torch.equal(value, expected[stage]) for stage, value in found.items())
    with pytest.raises(backbone.WeightsError, match="does not fit resnet18: .*fc.weight"):
        open_network(tmp_path / "a.npz", num_classes=8)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    net, notes = open_network(tmp_path / "a.pth")
    assert net.architecture == "resnet18" and "the usual one is taken" in notes[-1]

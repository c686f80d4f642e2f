"""tools/export_backbone.py, as its user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import backbone
from backbone.exporting import load_exported

TOOL = "export_backbone.py"
SMALL = ("--input-size", "40", "48")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(backbone.create("resnet18", num_classes=4).state_dict(), tmp_path / "r18.pth")
    return tmp_path / "r18.pth"


def test_onnx_from_weights(tool, weights):
    done = tool(
        TOOL, "--weights", weights, "--output", "a.onnx", "--out-features", "res2", "res3", *SMALL, "--json", "j"
    )
    done.fine(
        "a.onnx: ONNX, ", "network: resnet18", "dynamo exporter, opset", "run in onnxruntime", "| res2 ", "2x3x51x67"
    )
    assert "the usual one is taken: RGB 0..1" in done.out and "res5" not in done.out
    found = json.loads(Path("j").read_text())
    assert found["format"] == "ONNX" and found["largest_difference"] < 1e-5
    assert list(found["differences"]) == ["1x3x40x48", "2x3x51x67"]
    exported = load_exported("a.onnx")
    network = backbone.create("resnet18", out_features=("res2", "res3"), weights=weights).eval()
    images = torch.randn(1, 3, 44, 44)
    with torch.no_grad():
        expected = network(images)
    assert list(exported(images)) == ["res2", "res3"]
    for stage, value in exported(images).items():
        assert (value - expected[stage]).abs().max() < 1e-5 * expected[stage].abs().max()


def test_flags(tool, weights):
    base = ("--weights", weights, "--num-classes", "4", "--out-features", "logits", *SMALL)
    tool(TOOL, *base, "--output", "a.ts", "--bake-preprocessing").fine("| logits |        4 |", "TorchScript")
    assert load_exported("a.ts").metadata["input"]["dtype"] == "uint8"
    flags = ("--static", "--batch-size", "2", "--exporter", "torchscript", "--opset", "17")
    tool(TOOL, *base, "--output", "b.onnx", *flags).fine("torchscript exporter, opset 17", "2x3x40x48")
    assert load_exported("b.onnx").metadata["input"]["shape"] == [2, 3, 40, 48]
    tool(TOOL, *base, "--output", "c.xml", "--exporter", "torchscript").fine("c.xml: OpenVINO", "c.bin", "openvino 2")


@pytest.mark.parametrize(("name", "layout"), [("a.pth", "timm"), ("a.safetensors", "huggingface"), ("a.pkl", None)])
def test_weights_alone(tool, weights, name, layout):
    chosen = ("--layout", layout) if layout else ()
    done = tool(TOOL, "--weights", weights, "--output", name, "--out-features", "res2", *chosen, *SMALL)
    done.fine(f"{name}: weights, {layout or 'torchvision'} layout", "0.0e+00")
    network = backbone.create("resnet18", out_features=("res2",))
    backbone.load_weights(network, name)
    assert torch.equal(network.conv1.weight, torch.load(weights)["conv1.weight"])


def test_random_weights_by_name(tool):
    done = tool(TOOL, "--backbone", "cifar_resnet20", "--output", "a.ts", "--input-size", "32", "32")
    done.fine("note: no --weights: the weights are random", "preprocessing: not known", "| res4 ")


def test_out_of_a_trained_detector(tool, trained):
    from backbone.engine import checkpoint

    path = trained / "model_final.pth"
    done = tool(TOOL, "--checkpoint", path, "--output", "a.ts", *SMALL)
    done.fine("network: ", "preprocessing: ")
    metadata = load_exported("a.ts").metadata
    text = checkpoint.load(path)["config"]
    assert f"NAME: {metadata['architecture']}" in text
    assert metadata["preprocessing"]["channel_order"] in text
    tensors = checkpoint.load(path)["model"]
    prefix = next(name.removesuffix("conv1.weight") for name in tensors if name.endswith("bottom_up.conv1.weight"))
    stages = list(metadata["stages"])
    network = backbone.create(metadata["architecture"], out_features=stages, norm="frozen_bn").eval()
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
    for stage, value in load_exported("a.ts")(images).items():
        assert (value - expected[stage]).abs().max() < 1e-4 * expected[stage].abs().max()
    one = tool(TOOL, "--checkpoint", path, "--output", "b.ts", "--out-features", stages[0], *SMALL)
    one.fine(f"| {stages[0]} ")
    tool(TOOL, "--checkpoint", path, "--output", "c.ts", "--out-features", "res9").mistake("was built without res9")
    tool(TOOL, "--weights", path, "--output", "c.ts").mistake("give it as --checkpoint")
    tool(TOOL, "--checkpoint", path, "--backbone", "resnet18", "--output", "c.ts").mistake("leave out --backbone")
    assert not Path("c.ts").exists()


def test_mistakes(tool, weights, tmp_path):
    tool(TOOL, "--output", "a.onnx").mistake("give --weights FILE, --checkpoint FILE, or --backbone NAME")
    tool(TOOL, "--weights", weights).mistake("--output")
    tool(TOOL, "--weights", weights, "--output", "a.onx").mistake("a.onx: unknown suffix", "did you mean '.onnx'")
    tool(TOOL, "--weights", "none.pth", "--output", "a.onnx").mistake("none.pth: no such weights file")
    tool(TOOL, "--backbone", "resnet19", "--output", "a.onnx").mistake("resnet19", "did you mean")
    tool(TOOL, "--weights", weights, "--checkpoint", weights, "--output", "a.ts").mistake("not allowed with")
    tool(TOOL, "--weights", weights, "--output", "a.ts", "--out-features", "res9").mistake("res9", "must list some of")
    done = tool(TOOL, "--weights", weights, "--output", "a.ts", "--backbone", "resnet34")
    done.mistake("does not fit resnet34")
    assert "| layer1.2.conv1.weight" in done.out
    tool(TOOL, "--weights", weights, "--output", "a.ts", "--num-classes", "5").mistake("fc.weight")
    tool(TOOL, "--weights", weights, "--output", "a.ts", "--input-size", "0", "5").mistake("input_size")
    tool(TOOL, "--weights", weights, "--output", "a.ts", "--layout", "timm").mistake("layout is for weights alone")
    tool(TOOL, "--backbone", "resnet18", "--output", "a.ts", "--bake-preprocessing", *SMALL).mistake("not known what")
    assert [file.name for file in tmp_path.iterdir()] == ["r18.pth"]


def test_help(tool):
    done = tool(TOOL, "--help")
    done.fine("example:", "--bake-preprocessing", "--out-features STAGE", "weights of any known kind")

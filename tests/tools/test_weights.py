"""tools/weights.py, and commands that are given a name or a URL in place of a file."""

from __future__ import annotations

import json

import pytest
from loopback import serving

import backbone
from backbone.weights import sources


def test_the_list(tool, tmp_path):
    done = tool("weights.py", "torchvision:resnet50:*", "--json", tmp_path / "list.json")
    text = done.fine("torchvision:resnet50:IMAGENET1K_V1", "acc@1 76.13 (ImageNet-1K)", "2 names")
    assert "resnet101" not in text
    first = json.loads((tmp_path / "list.json").read_text())[0]
    assert first["source"].startswith("https://") and first["preprocessing"]["channel_order"] == "RGB"
    tool("weights.py", "torchvision:resnet51").mistake("no weights have a name like", "did you mean")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("convert_weights.py", ("{}", "out.pth", "--to", "timm")),
        ("export_backbone.py", ("--weights", "{}", "--output", "out.pth")),
        ("export_backbone.py", ("--checkpoint", "{}", "--output", "out.pth")),
        ("predict.py", ("--weights", "{}", "--input", ".", "--output", "found")),
        ("export_detector.py", ("--weights", "{}", "--output", "out.onnx")),
        ("train_net.py", ("--config", "mini_faster_rcnn_r18.yaml", "--weights", "{}")),
        ("train_segmentation.py", ("--config", "voc_fcn_r50.yaml", "--weights", "{}")),
        ("pretrain.py", ("--config", "cifar10_resnet20.yaml", "--eval-only", "--weights", "{}")),
        ("analyze.py", ("--responses", "--networks", "resnet18", "--weights", "resnet18={}")),
    ],
)
def test_a_wrong_name_is_one_line_of_every_command(tool, tmp_path, command, flags):
    line = tool(command, *(flag.format("torchvision:resnet8") for flag in flags)).mistake("torchvision:resnet8: ")
    assert "did you mean 'resnet18'?" in line
    assert list(tmp_path.iterdir()) == []


def test_convert_takes_a_url_and_keeps_nothing_of_a_cut_download(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_found", {})
    backbone.save_weights(backbone.create("cifar_resnet20", num_classes=10), tmp_path / "net.pth", layout="torchvision")
    with serving() as server:
        url = server.add("/net.pth", (tmp_path / "net.pth").read_bytes())
        server.cuts["/net.pth"] = 1
        tool("convert_weights.py", url, "out.pth", "--to", "torchvision").mistake("cut off", str(tmp_path / "cache"))
        assert not (tmp_path / "out.pth").exists() and not list((tmp_path / "cache").rglob("*.pth*"))
        tool("convert_weights.py", url, "out.pth", "--to", "torchvision").fine(f"{url}: torch file", "cifar_resnet20")

"""tools/convert_weights.py, as its user calls it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import backbone
from backbone.weights import open_weights


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = backbone.create("resnet18", num_classes=4)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "r18.pth.tar")
    return tmp_path / "r18.pth.tar"


def equal(a: Path, b: Path) -> bool:
    first, second = open_weights(a).tensors, open_weights(b).tensors
    kept = [name for name in first if "num_batches" not in name]
    return all(torch.equal(first[name], second[name]) for name in kept)


@pytest.mark.parametrize(
    ("layout", "name", "first"),
    [
        ("detectron2", "r18.pkl", "stem.conv1.weight"),
        ("huggingface", "model.safetensors", "resnet.embedder.embedder.convolution.weight"),
        ("mmpretrain", "r18.pth", "backbone.conv1.weight"),
        ("timm", "r18.npz", "conv1.weight"),
    ],
)
def test_converts(tool, source, layout, name, first):
    done = tool("convert_weights.py", source, name, "--to", layout)
    done.fine("torch file, torchvision layout, ", "network: resnet18", "RGB 0..1", f"{name}: {layout} layout")
    assert "usual for the layout" in done.out and "read back and found equal" in done.out
    assert equal(source, Path(name))
    if name.endswith(".pkl"):
        assert first in pickle.loads(Path(name).read_bytes())["model"]
    # And back, by what the file itself says.
    tool("convert_weights.py", name, "back.pth", "--to", "torchvision").fine("network: resnet18")
    assert equal(source, Path("back.pth"))


def test_caffe_to_detectron2(tool, tmp_path):
    from caffe_files import resnet, write

    layers = resnet((3, 4, 6, 3), numbered=False, first_bias=True)
    path = write(tmp_path / "ResNet-50-model.caffemodel", layers)
    done = tool("convert_weights.py", path, "R-50.pkl", "--to", "detectron2")
    done.fine("caffemodel file, caffe layout", "network: resnet50", "BGR 0..255", "stride in 1x1", "STRIDE_IN_1X1")
    assert equal(path, tmp_path / "R-50.pkl")
    # timm has no such network.
    tool("convert_weights.py", path, "a.pth", "--to", "timm").mistake("'timm'", "stride in the first 1x1")
    assert not Path("a.pth").exists()


def test_a_backbone_out_of_a_detector(tool, tmp_path):
    state = backbone.create("resnet18").state_dict()
    tensors = {f"backbone.bottom_up.{name}": value for name, value in state.items()} | {"roi_heads.a": torch.ones(1)}
    torch.save({"model": tensors}, "detector.pth")
    done = tool("convert_weights.py", "detector.pth", "r18.pth", "--to", "torchvision")
    done.fine("note: 1 tensor beside 'backbone.bottom_up.' left out")
    assert set(torch.load("r18.pth")) == set(state)


def test_a_whole_detector_of_torchvision(tool, tmp_path, monkeypatch):
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

    parts = {"box_head": TwoMLPHead(256 * 49, 4), "box_predictor": FastRCNNPredictor(4, 4)}
    model = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), **parts)
    torch.save(model.state_dict(), "tv.pth")
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda file, **keywords: read.append(Path(file).name) or load(file, **keywords))
    done = tool("convert_weights.py", "tv.pth", "again.pth", "--to", "torchvision")
    done.fine(
        "tv.pth: torchvision: Faster R-CNN on resnet18_fpn, 3 classes",
        "| torchvision ",
        "background moved behind the classes; background moved before the classes",
        "of epsilon 1e-05 in place of 0",
        "note: frozen norms have an epsilon of 0",
        "again.pth: torchvision's detector, ",
        "again.json: the names of its labels, and the call: FasterRCNN(backbone=resnet_fpn_backbone(",
    )
    assert read.count("tv.pth") == 1
    model.load_state_dict(torch.load("again.pth"))
    convert = ("convert_weights.py", "tv.pth", "b.pth", "--to")
    tool(*convert, "torchvision", "--backbone", "resnet18").mistake("--backbone resnet18: tv.pth is a whole detector")
    tool(*convert, "detectron2").mistake("detectron2 does not know anchors as torchvision's", "--backbone-only")
    assert not Path("b.pth").exists() and not Path("b.yaml").exists()
    tool(*convert, "torchvision", "--backbone-only").fine("network: resnet18", "b.pth: torchvision layout")
    read.clear()
    tool("convert_weights.py", "b.pth", "c.pth", "--to", "torchvision").fine("network: resnet18")
    assert read.count("b.pth") == 1


def test_the_network_by_name(tool, source):
    torch.save(backbone.create("cifar_plain20", num_classes=10).state_dict(), "plain.pth")
    done = tool("convert_weights.py", "plain.pth", "a.npz", "--to", "torchvision")
    done.fine("network: cifar_resnet20", "note: cifar_plain20 has the same tensors")
    done = tool("convert_weights.py", "plain.pth", "b.npz", "--to", "torchvision", "--backbone", "cifar_plain20")
    done.fine("network: cifar_plain20")
    assert open_weights("b.npz").architecture == "cifar_plain20"
    done = tool("convert_weights.py", source, "c.npz", "--to", "torchvision", "--backbone", "resnet34")
    done.mistake("does not fit resnet34", "are those of resnet18")
    # Eight blocks more, of ten tensors each.
    assert "| layer1.2.conv1.weight" in done.out and done.out.count("missing") == 80


def test_mistakes(tool, source, tmp_path):
    Path("there.pth").write_bytes(b"precious")
    Path("broken.pth").write_bytes(source.read_bytes()[:-2000])
    Path("list.pth").write_bytes(b"[1, 2]")
    torch.save({"a": torch.ones(1)}, "unknown.pth")
    call = "convert_weights.py"
    tool(call, source, "there.pth", "--to", "timm").mistake("there.pth: exists already", "--force")
    assert Path("there.pth").read_bytes() == b"precious"
    same = source.rename("r18.pth")
    tool(call, same, "r18.pth", "--to", "timm", "--force").mistake("give another name")
    source = same.rename(source)
    tool(call, "nowhere.pth", "a.pth", "--to", "timm").mistake("nowhere.pth: no such weights file")
    tool(call, "broken.pth", "a.pth", "--to", "timm").mistake("broken.pth")
    tool(call, "list.pth", "a.pth", "--to", "timm").mistake("not a weights file of a known kind")
    tool(call, "unknown.pth", "a.pth", "--to", "timm").mistake("no known layout", "no known network")
    tool(call, source, "a.pth", "--to", "tim").mistake("unknown layout 'tim'; did you mean 'timm'")
    tool(call, source, "a.onnx", "--to", "timm").mistake("'.onnx'", ".safetensors")
    tool(call, source, "a.pth", "--to", "timm", "--backbone", "resnet19").mistake("resnet19", "did you mean")
    tool(call, source, "a.pth").mistake("--to")
    # Before it is downloaded, which would fail here with another message.
    panoptic = "detectron2:COCO-PanopticSegmentation/panoptic_fpn_R_50_1x"
    tool(call, panoptic, "a.pkl", "--to", "detectron2").mistake("PanopticFPN", "--backbone-only")
    assert not Path("a.pth").exists()
    assert not list(tmp_path.glob(".*")), "no temporary file is left"
    tool(call, source, "there.pth", "--to", "timm", "--force").fine()
    assert equal(source, Path("there.pth"))


def test_what_comes_back_changed_is_not_kept(tool, source, monkeypatch):
    """A writer that loses something."""
    from backbone.weights import save

    def lossy(path: Path, tensors: dict, text: str, container: str | None) -> None:
        torch.save({name: value * 0 for name, value in tensors.items()}, path)

    monkeypatch.setitem(save.WRITERS, ".pth", lossy)
    tool("convert_weights.py", source, "a.pth", "--to", "timm").mistake("a.pth: not kept", "did not come back")
    assert not Path("a.pth").exists()


def test_help(tool):
    done = tool("convert_weights.py", "--help")
    done.fine("example:", "--to LAYOUT", "detectron2, huggingface")

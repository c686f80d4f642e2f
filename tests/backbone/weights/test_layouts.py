"""Every layout against the project that it is named after: loaded strictly there and here, same features, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from other_projects import (
    BY_NAMES,
    CLASSES,
    RUN,
    Peer,
    empty,
    filled,
    from_torchvision,
    on_meta,
    same,
    without_counters,
)
from randomize import relative_error
from torch import nn

import backbone
from backbone.weights import LAYOUTS, WRITABLE, WeightMetadata, open_weights, save_weights
from backbone.weights.layouts import find_layout
from backbone.weights.layouts.timm import Timm

TOLERANCE = 1e-5


def ours(peer: Peer) -> nn.Module:
    classes = {"num_classes": CLASSES} if peer.stages == ("logits",) else {}
    return backbone.create(peer.name, **classes, **peer.keywords, out_features=peer.stages)


@torch.no_grad()
def close(peer: Peer, theirs: nn.Module, network: nn.Module) -> None:
    """Compare every output on two images of an odd size."""
    images = torch.randn(2, 3, 75, 98, generator=torch.Generator().manual_seed(1))
    found, expected = network.eval()(images), peer.outputs(theirs, images)
    assert list(found) == list(peer.stages) and len(expected) == len(found)
    for value, truth in zip(found.values(), expected):
        assert value.shape == truth.shape
        assert relative_error(value, truth) < TOLERANCE


@pytest.mark.parametrize("peer", RUN, ids=str)
@pytest.mark.proves(
    "torchvision",
    "backbones",
    "in, out",
    "logits of torchvision's networks; their load_state_dict takes our file, strictly",
)
@pytest.mark.proves(
    "timm", "backbones", "in, out", "logits of timm's networks; their load_state_dict takes our file, strictly"
)
@pytest.mark.proves(
    "detectron2", "backbones", "in, out", "features of detectron2's networks; they take our file, strictly"
)
@pytest.mark.proves(
    "huggingface", "backbones", "in, out", "features and logits of transformers' networks; they take our file, strictly"
)
def test_loads_from_the_peer_and_back(peer, tmp_path):
    theirs, network = filled(peer.build), empty(lambda: ours(peer))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    report = backbone.load_weights(network, tmp_path / "theirs.pth")
    assert report.fits
    assert report.layout == (peer.read_as or peer.layout)
    close(peer, theirs, network)

    save_weights(network, tmp_path / "back.pth", layout=peer.layout)
    content = torch.load(tmp_path / "back.pth", weights_only=True)
    again = empty(peer.build)
    again.load_state_dict(content.get("model", content), strict=True)
    same(theirs, again)

    once_more = empty(lambda: ours(peer))
    report = backbone.load_weights(once_more, tmp_path / "back.pth")
    assert report.fits and report.layout == (peer.read_as or peer.layout)
    same(network, once_more)


@pytest.mark.parametrize("peer", BY_NAMES, ids=str)
def test_names_and_shapes(peer):
    """The deeper networks have the blocks of those above, more often."""
    theirs, network = on_meta(peer.build), on_meta(lambda: ours(peer))
    layout = LAYOUTS[peer.layout]
    state = network.state_dict()
    layout.check(network, state)
    written = {name: value.shape for name, value in layout.from_ours(state, network).items()}
    expected = {name: value.shape for name, value in theirs.state_dict().items()}
    assert without_counters(written) == without_counters(expected)
    if layout.counters:
        assert written == expected
    recognised = find_layout(expected)
    assert recognised.name == (peer.read_as or peer.layout)
    read = recognised.to_ours(theirs.state_dict(), {})
    assert {name: value.shape for name, value in read.items()} == {name: value.shape for name, value in state.items()}


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
@torch.no_grad()
def test_features_of_vgg(name, tmp_path):
    """The convolutions of torchvision's (and timm's) VGG; the large fully connected layers apart, below."""
    theirs = filled(lambda: from_torchvision(name).build().features)
    torch.save({f"features.{key}": value for key, value in theirs.state_dict().items()}, tmp_path / "vgg.pth")
    network = backbone.create(name, out_features=("conv5",)).eval()
    assert backbone.load_weights(network, tmp_path / "vgg.pth").layout == "torchvision"
    images = torch.randn(1, 3, 65, 48)
    assert relative_error(network(images)["conv5"], theirs[:-1](images)) < TOLERANCE


@torch.no_grad()
def test_timm_vgg_classifier():
    """timm has VGG's fully connected layers as convolutions over the 7 x 7 map."""
    fc6, fc7 = nn.Conv2d(6, 5, 7), nn.Conv2d(5, 4, 1)
    tensors = {"features.0.weight": torch.ones(1)}
    for name, layer in (("fc1", fc6), ("fc2", fc7)):
        tensors |= {f"pre_logits.{name}.{key}": value for key, value in layer.state_dict().items()}
    assert find_layout(tensors).name == "timm"
    read = Timm().to_ours(tensors, {})
    x = torch.randn(2, 6, 7, 7)
    hidden = nn.functional.linear(x.flatten(1), read["classifier.0.weight"], read["classifier.0.bias"])
    found = nn.functional.linear(hidden, read["classifier.3.weight"], read["classifier.3.bias"])
    assert relative_error(found, fc7(fc6(x)).flatten(1)) < TOLERANCE
    network = on_meta(lambda: backbone.create("vgg16"))
    back = Timm().from_ours(read, network)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in back)


# -- files that their own projects read


@pytest.mark.proves("huggingface", "backbones", "out", "from_pretrained takes our safetensors as they are")
def test_transformers_reads_our_safetensors(tmp_path):
    """from_pretrained takes the file as it is."""
    import transformers

    peer = next(peer for peer in RUN if peer.layout == "huggingface" and peer.name == "resnet18")
    network = filled(lambda: ours(peer))
    save_weights(network, tmp_path / "model.safetensors", layout="huggingface")
    peer.build().config.save_pretrained(tmp_path)
    theirs, info = transformers.ResNetForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(peer, theirs.eval(), network)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_detectron2s_checkpointer_finds_the_backbone_of_a_detector(tmp_path, suffix, capfd):
    from detectron2.checkpoint import DetectionCheckpointer

    peer = next(peer for peer in RUN if peer.layout == "detectron2" and peer.name == "resnet18")
    network = filled(lambda: ours(peer))
    path = tmp_path / f"weights{suffix}"
    save_weights(network, path, layout="detectron2")
    detector = nn.Module()
    detector.backbone = nn.Module()
    detector.backbone.bottom_up = peer.build().eval()
    DetectionCheckpointer(detector).load(str(path))
    close(peer, detector.backbone.bottom_up, network)
    # And the other way: that detector's checkpoint.
    torch.save({"model": detector.state_dict()}, tmp_path / "detector.pth")
    again = ours(peer)
    assert backbone.load_weights(again, tmp_path / "detector.pth").fits
    close(peer, detector.backbone.bottom_up, again)


def test_files_of_detectron2s_converter(tmp_path):
    """tools/convert-torchvision-to-d2.py: `stem.` before conv1, bn1 and fc, and torchvision as the author."""
    import pickle

    source = filled(lambda: backbone.create("resnet18", num_classes=CLASSES, norm="bn"))
    names = {}
    for name in source.state_dict():
        theirs = name if "layer" in name else f"stem.{name}"
        for index in (1, 2, 3, 4):
            theirs = theirs.replace(f"layer{index}", f"res{index + 1}").replace(f"bn{index}", f"conv{index}.norm")
        names[name] = theirs.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    arrays = {names[name]: value.numpy() for name, value in source.state_dict().items()}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "r18.pkl").write_bytes(pickle.dumps(content))
    network = backbone.create("resnet18", num_classes=CLASSES)
    report = backbone.load_weights(network, tmp_path / "r18.pkl")
    assert report.fits and report.layout == "detectron2"
    same(source, network)
    # As the script's docstring says for the config.
    assert report.preprocessing.channel_order == "RGB"
    assert report.preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))
    assert report.preprocessing.std == pytest.approx((58.395, 57.12, 57.375))
    assert report.weight_metadata.stride_in_1x1 is False and not report.preprocessing.assumed


# -- frozen BN, and layouts that have no such network


@pytest.mark.parametrize("layout", ["torchvision", "timm", "mmdet", "huggingface", "detectron2"])
def test_a_frozen_network_becomes_one_with_bn(layout, tmp_path):
    """The counters of batches that a peer's BN has, and a frozen BN not, are in the file."""
    frozen = filled(lambda: backbone.create("resnet18", norm="frozen_bn", freeze_at=2))
    save_weights(frozen, tmp_path / "a.safetensors", layout=layout)
    counters = [name for name in open_weights(tmp_path / "a.safetensors").tensors if "num_batches" in name]
    assert len(counters) == (0 if layout == "detectron2" else 20)
    network = backbone.create("resnet18", norm="bn")
    assert backbone.load_weights(network, tmp_path / "a.safetensors").fits
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for value, truth in zip(network.eval()(images).values(), frozen(images).values()):
            assert relative_error(value, truth) < TOLERANCE


@pytest.mark.parametrize(
    ("layout", "name", "keywords", "said"),
    [
        ("timm", "cifar_resnet20", {}, "CIFAR"),
        ("timm", "plain18", {}, "without projection shortcuts"),
        ("timm", "resnet50", {"stride_in_1x1": True}, "stride in the first 1x1"),
        ("timm", "resnet18", {"shortcut": "C"}, "option C"),
        ("mmdet", "preact_resnet18", {}, "pre-activation"),
        ("mmdet", "vgg16_bn", {}, "VGG"),
        ("detectron2", "resnet18", {"stem": "deep"}, "deep stem"),
        ("detectron2", "resnet50", {"average_down": True}, "averaging"),
        ("detectron2", "cifar_preact_resnet110", {}, "pre-activation"),
        ("huggingface", "resnext50_32x4d", {}, "ResNeXt"),
        ("huggingface", "wide_resnet50_2", {}, "wide"),
        ("huggingface", "resnet18", {"norm": "gn"}, "GroupNorm"),
        ("huggingface", "resnet50", {"stem": "deep"}, "RT-DETR"),
        ("huggingface", "resnet18", {"stem": "deep", "average_down": True}, "RT-DETR"),
        ("huggingface", "resnet18", {"shortcut": "A"}, "option A"),
    ],
)
def test_a_layout_without_such_a_network(layout, name, keywords, said, tmp_path):
    network = on_meta(lambda: backbone.create(name, **keywords))
    with pytest.raises(backbone.WeightsError) as caught:
        LAYOUTS[layout].check(network, network.state_dict())
    message = str(caught.value)
    assert said in message and name in message and "'torchvision' takes every network" in message


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("cifar_resnet20", {}),
        ("cifar_plain20", {}),
        ("plain18", {}),
        ("preact_resnet18", {"shortcut": "C"}),
        ("resnet18", {"norm": "gn", "stem": "deep", "average_down": True}),
        ("cifar_preact_resnet110", {}),
    ],
)
def test_our_own_layout_takes_every_network(name, keywords, tmp_path):
    network = filled(lambda: backbone.create(name, num_classes=4, **keywords))
    save_weights(network, tmp_path / "a.npz")
    again = backbone.create(name, num_classes=4, **keywords)
    report = backbone.load_weights(again, tmp_path / "a.npz")
    assert report.fits
    same(network, again)


def test_bit_is_refused(tmp_path):
    """Its standardised convolutions would load and compute something else."""
    import timm

    theirs = on_meta(lambda: timm.create_model("resnetv2_50x1_bit"))
    with pytest.raises(backbone.WeightsError, match="BiT"):
        Timm().to_ours(theirs.state_dict(), {})


def test_two_tensors_of_one_name(tmp_path):
    network = filled(lambda: backbone.create("resnet18", num_classes=3))
    save_weights(network, tmp_path / "a.pth", layout="detectron2")
    tensors = dict(torch.load(tmp_path / "a.pth", weights_only=True)["model"])
    torch.save(tensors | {"stem.fc.bias": torch.ones(3)}, tmp_path / "b.pth")
    with pytest.raises(backbone.WeightsError, match=r"b\.pth: two tensors for fc\.bias"):
        open_weights(tmp_path / "b.pth")


def test_the_usual_preprocessing_of_layouts():
    """What timm itself says of its networks' pretrained weights."""
    import timm

    for theirs in ("resnet50", "resnet50d", "resnetv2_50", "vgg16"):
        model = on_meta(lambda theirs=theirs: timm.create_model(theirs))
        layout = find_layout(model.state_dict())
        weight_metadata: WeightMetadata = layout.weight_metadata(model.state_dict(), {})
        assert weight_metadata.preprocessing.assumed
        assert weight_metadata.preprocessing.value_range == 1 and weight_metadata.preprocessing.channel_order == "RGB"
        assert weight_metadata.preprocessing.mean == tuple(model.default_cfg["mean"])
        assert weight_metadata.preprocessing.std == tuple(model.default_cfg["std"])


def test_metadata_of_another_tool_is_left_alone(tmp_path):
    network = backbone.create("resnet18", out_features=("res2",))
    content = {"state_dict": network.state_dict(), "metadata": {"preprocessing": "imagenet"}}
    torch.save(content, tmp_path / "a.pth")
    assert open_weights(Path(tmp_path / "a.pth")).metadata == {}
    assert json.loads(json.dumps(open_weights(tmp_path / "a.pth").metadata)) == {}


def test_the_readme_counts_the_layouts():
    number = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    readme = (Path(backbone.__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"{number[len(LAYOUTS)]} layouts in, {number[len(WRITABLE)]} out" in readme

"""save_weights: every kind of file, its metadata, and that the former file survives whatever goes wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from other_projects import empty, filled
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations, prune

import backbone
from backbone.weights import Preprocessing, open_weights, read_file, read_weight_metadata, save_weights
from backbone.weights.metadata import KEY
from backbone.weights.save import converted

SUFFIXES = [".pth", ".pt", ".th", ".safetensors", ".pkl", ".npz"]
KINDS = {".safetensors": "safetensors", ".pkl": "pickle", ".npz": "npz"}
BGR = Preprocessing("BGR", 255, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))


def network(**keywords: object) -> nn.Module:
    return filled(lambda: backbone.create("resnet50", **{"out_features": ("res2",), **keywords}))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("layout", ["torchvision", "detectron2", "huggingface"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_comes_back_with_its_metadata(suffix, layout, tmp_path):
    source = network(stride_in_1x1=True, ceil_pool=True, norm="frozen_bn")
    source.preprocessing = BGR
    path = tmp_path / f"weights{suffix}"
    save_weights(source, path, layout=layout, metadata={"epochs": 90, "top1": 75.3})
    weights = open_weights(path)
    assert (weights.kind, weights.layout) == (KINDS.get(suffix, "torch"), layout)
    expected = {"architecture": "resnet50", "layout": layout, "norm": "frozen_bn", "in_chans": 3}
    expected |= {"epochs": 90, "top1": 75.3}
    expected |= {"stride_in_1x1": True, "ceil_pool": True, "average_down": False, "preprocessing": BGR.to_dict()}
    expected |= {"stem": "conv7", "shortcut": "B", "output_stride": 32}
    assert weights.metadata == expected
    assert weights.architecture == "resnet50"
    target = empty(lambda: backbone.create("resnet50", out_features=("res2",), stride_in_1x1=True))
    report = backbone.load_weights(target, path)
    assert report.fits and target.preprocessing == BGR == report.preprocessing
    assert target.ceil_pool and not target.preprocessing.assumed
    assert report.notes == ["pooling set to round up without padding"]
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_state_dict_that_torch_load_gives(tmp_path):
    """No wrapping: the file goes straight into load_state_dict, and the metadata is out of sight."""
    source = network(norm="bn")
    save_weights(source, tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert content.keys() == source.state_dict().keys()
    empty(lambda: backbone.create("resnet50", out_features=("res2",))).load_state_dict(content, strict=True)


def test_the_other_kinds_as_their_readers_know_them(tmp_path):
    source = network(norm="frozen_bn")
    save_weights(source, tmp_path / "a.pkl", layout="detectron2")
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert content["matching_heuristics"] is True and isinstance(content["__author__"], str)
    assert all(type(value) is np.ndarray for value in content["model"].values())
    save_weights(source, tmp_path / "a.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()[KEY])["architecture"] == "resnet50"
    save_weights(source, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive.files) - {KEY} >= set(source.state_dict())


def test_half_precision_on_another_device_and_strided(tmp_path):
    """What a network holds is written as it is: its dtype, whatever its memory format."""
    source = network().half().to(memory_format=torch.channels_last)
    for suffix in SUFFIXES:
        save_weights(source, tmp_path / f"a{suffix}")
        tensors = open_weights(tmp_path / f"a{suffix}").tensors
        assert tensors["conv1.weight"].dtype == torch.float16
        assert torch.equal(tensors["conv1.weight"], source.conv1.weight)


def test_preprocessing_that_was_assumed_stays_so(tmp_path):
    """Converting a file must not turn a guess into knowledge."""
    torch.save(network(norm="bn").state_dict(), tmp_path / "a.pth")
    target = network(norm="bn")
    report = backbone.load_weights(target, tmp_path / "a.pth")
    assert report.preprocessing.assumed and report.preprocessing.mean == (0.485, 0.456, 0.406)
    save_weights(target, tmp_path / "b.npz")
    assert read_weight_metadata(tmp_path / "b.npz").preprocessing.assumed
    # A network that was never loaded has nothing to say.
    save_weights(backbone.create("resnet18", out_features=("stem",)), tmp_path / "c.npz")
    assert "preprocessing" not in open_weights(tmp_path / "c.npz").metadata


def test_notes_for_the_reader(tmp_path):
    source = network(stride_in_1x1=True, ceil_pool=True)
    notes = save_weights(source, tmp_path / "a.pkl", layout="detectron2")
    assert "MODEL.RESNETS.STRIDE_IN_1X1" in notes[0] and "pools without padding" in notes[1]
    assert "style='caffe'" in save_weights(source, tmp_path / "a.pth", layout="mmdet")[0]
    assert save_weights(network(), tmp_path / "a.pth", layout="timm") == []


DC5 = {"output_stride": 16, "dilation_style": "mmdetection"}


@pytest.mark.parametrize(
    ("name", "keywords", "layout", "said"),
    [
        ("resnet50", {"stem": "deep", "average_down": True}, "mmdet", "ResNet with deep_stem=True, avg_down=True"),
        ("resnet50", {"norm": "gn"}, "mmdet", "ResNet with norm_cfg=dict(type='GN', num_groups=32)"),
        ("resnext101_32x8d", {}, "mmdet", "MMDetection's ResNeXt with groups=32, base_width=8"),
        ("resnext101_32x8d", {}, "mmpretrain", "MMPretrain's ResNeXt with groups=32, width_per_group=8"),
        ("resnet50", DC5, "mmdet", "ResNet with strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)"),
        ("resnet50", {**DC5, "output_stride": 8}, "mmdet", "strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)"),
        ("resnet50", {"output_stride": 16}, "mmdet", "dilates as dilation_style='mmdetection', this network as 'torch"),
        ("resnext101_32x8d", DC5, "detectron2", "NUM_GROUPS to 32, WIDTH_PER_GROUP to 8, RES5_DILATION to 2"),
        ("resnet50", {"norm": "gn"}, "detectron2", "set MODEL.RESNETS.NORM to GN"),
        ("resnet50", {**DC5, "output_stride": 8}, "detectron2", "no network of output stride 8"),
        ("resnet50", {"output_stride": 8}, "torchvision", "replace_stride_with_dilation=[False, True, True]"),
        ("resnet50", {"output_stride": 16}, "timm", "output_stride=16"),
        ("resnet50", DC5, "timm", "this network as 'mmdetection': features differ"),
    ],
)
def test_notes_name_every_option_of_the_reader(name, keywords, layout, said):
    with torch.device("meta"):
        source = backbone.create(name, **keywords)
    assert said in "; ".join(converted(source.to_empty(device="cpu"), layout)[1])


# -- mistakes, and disks


@pytest.mark.parametrize(
    ("name", "layout", "said"),
    [
        ("a.ptx", "torchvision", ".pth"),
        ("a", "torchvision", "suffixes: .npz, .pkl"),
        ("a.onnx", "torchvision", "not written as '.onnx'"),
        ("a.pth", "torchvison", "did you mean 'torchvision'"),
        ("a.pth", "caffe", "can be read, not written; known: detectron2, huggingface, mmdet"),
        ("a.pth", "keras", "known:"),
    ],
)
def test_unknown_suffix_or_layout(name, layout, said, tmp_path):
    with pytest.raises(backbone.WeightsError) as caught:
        save_weights(network(), tmp_path / name, layout=layout)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folded_copy_has_no_bn_to_write(tmp_path):
    folded = backbone.fold(network())
    for module in (folded, folded.network, nn.Linear(1, 1)):
        with pytest.raises(backbone.WeightsError, match="network that it was made from"):
            save_weights(module, tmp_path / "a.pth")


def test_metadata_must_be_plain(tmp_path):
    with pytest.raises(backbone.WeightsError, match="metadata must be plain data"):
        save_weights(network(), tmp_path / "a.pth", metadata={"weights": torch.ones(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_former_file_survives(suffix, tmp_path, monkeypatch):
    """A disk that fills up in the middle of writing."""
    path = tmp_path / f"a{suffix}"
    save_weights(network(), path)
    before = path.read_bytes()

    def full(self: Path, *arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(backbone.RunError, match="No space left"):
        save_weights(network(norm="frozen_bn"), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# -- metadata that somebody has changed


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ('{"stride_in_1x1": "yes"}', "stride_in_1x1 must be true or false"),
        ('{"preprocessing": {"mean": [1, 2, 3]}}', "preprocessing must have channel_order"),
        (json.dumps({"preprocessing": {**BGR.to_dict(), "channel_order": "GBR"}}), "RGB, BGR, L or bands"),
        (json.dumps({"preprocessing": {**BGR.to_dict(), "value_range": 100}}), "255 or 1"),
        (json.dumps({"preprocessing": {**BGR.to_dict(), "mean": [0, 0]}}), "three numbers"),
        (json.dumps({"preprocessing": {**BGR.to_dict(), "std": [1, 0, 1]}}), "above 0"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)  # fmt: skip
def test_broken_metadata(values, said, tmp_path):
    from safetensors.torch import save_file

    save_file(network().state_dict(), tmp_path / "a.safetensors", metadata={KEY: values})
    with pytest.raises(backbone.WeightsError, match=said) as caught:
        open_weights(tmp_path / "a.safetensors")
    assert "a.safetensors" in str(caught.value)


def test_metadata_of_another_shape_is_ignored(tmp_path):
    for number, found in enumerate((3, [1], torch.ones(2), {"architecture": 7})):
        torch.save({"state_dict": network().state_dict(), KEY: found}, tmp_path / f"{number}.pth")
        assert open_weights(tmp_path / f"{number}.pth").architecture is None
    assert isinstance(read_file(tmp_path / "0.pth")[0], dict)


def test_a_checkpoint_of_a_run_tells_what_its_metadata_say(tmp_path):
    source = network()
    facts = {"architecture": source.architecture, "preprocessing": BGR.to_dict(), "classes": ["a"]}
    torch.save({"model": source.state_dict(), "metadata": facts}, tmp_path / "a.pth")
    weights = open_weights(tmp_path / "a.pth")
    assert weights.architecture == source.architecture and weights.metadata["classes"] == ["a"]
    assert weights.weight_metadata.preprocessing == BGR


@pytest.mark.parametrize("facts", [3, {"classes": ["a"]}, {"architecture": 7, "preprocessing": 7}])
def test_metadata_that_name_no_architecture_are_another_tools(facts, tmp_path):
    torch.save({"model": network().state_dict(), "metadata": facts}, tmp_path / "a.pth")
    assert open_weights(tmp_path / "a.pth").metadata == {}


def test_a_checkpoint_with_broken_metadata_is_named(tmp_path):
    facts = {"architecture": network().architecture, "preprocessing": {"channel_order": "RGB"}}
    torch.save({"model": network().state_dict(), "metadata": facts}, tmp_path / "a.pth")
    with pytest.raises(backbone.WeightsError, match="a.pth: metadata: "):
        open_weights(tmp_path / "a.pth")


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@torch.no_grad()
def test_wrapped_and_pruned_layers_are_written_under_their_own_names(tmp_path):
    source = filled(lambda: backbone.create("resnet18", norm="frozen_bn")).eval()
    prune.l1_unstructured(source.layer1[0].conv1, "weight", 0.5)
    parametrizations.weight_norm(source.layer2[0].conv1)
    source.layer3 = Wrapper(source.layer3)
    source.layer4 = torch.compile(source.layer4, backend="eager")
    x = torch.randn(1, 3, 32, 32)
    expected = source(x)["res5"]
    save_weights(nn.DataParallel(source), tmp_path / "a.pth")
    with torch.device("meta"):
        target = backbone.create("resnet18", norm="frozen_bn")
    assert backbone.load_weights(target, tmp_path / "a.pth").fits
    torch.testing.assert_close(target(x)["res5"], expected)
    # The way back: plain names go into the wrapped network.
    parametrizations.weight_norm(target.layer2[0].conv1)
    torch.nn.utils.parametrize.remove_parametrizations(source.layer2[0].conv1, "weight")
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.zero_()
    source.bn1 = nn.Sequential(source.bn1)
    source.layer2 = checkpoint_wrapper(source.layer2)
    assert backbone.load_weights(nn.DataParallel(source), tmp_path / "a.pth").fits
    torch.testing.assert_close(source(x)["res5"], expected)
    with pytest.raises(backbone.WeightsError, match=r"missing \(layer2.0.conv1.parametrizations"):
        backbone.load_weights(target, tmp_path / "a.pth")


def test_layers_of_other_names_and_empty_networks_are_refused(tmp_path):
    source = backbone.create("resnet18")
    source.layer1[0].conv1 = nn.Sequential(source.layer1[0].conv1, nn.Tanh())
    with pytest.raises(backbone.WeightsError, match=r"layer1\.0\.conv1\.weight would have other names"):
        save_weights(source, tmp_path / "a.pth")
    with torch.device("meta"):
        source = backbone.create("resnet18")
    with pytest.raises(backbone.WeightsError, match="on meta"):
        save_weights(source, tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())

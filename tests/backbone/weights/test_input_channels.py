"""Weights in networks for images of other channels: timm's rule, preprocessing, files, exports."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import torchvision
from timm.models import adapt_input_conv

import backbone
from backbone.common.preprocessing import MSRA, USUAL
from backbone.weights import WRITABLE, Preprocessing, convert, open_weights
from backbone.weights.channels import adapted

FIRST = {"resnet18": "conv1.weight", "preact_resnet18": "conv1.weight", "cifar_resnet20": "conv1.weight"}
FIRST |= {"vgg16": "features.0.weight"}


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels_as_timms(channels, dtype):
    kernel = torch.randn(8, 3, 7, 7).to(dtype)
    assert torch.equal(adapted(kernel, channels), adapt_input_conv(channels, kernel.clone()))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_whole_network_as_timms(tmp_path, channels):
    """timm's own network with its own adapted weights gives the same logits."""
    origin = timm.create_model("resnet18", num_classes=5).state_dict()
    torch.save(origin, tmp_path / "w.pth")
    theirs = timm.create_model("resnet18", num_classes=5, in_chans=channels).eval()
    theirs.load_state_dict(origin | {"conv1.weight": adapt_input_conv(channels, origin["conv1.weight"])})
    net = backbone.create("resnet18", num_classes=5, in_chans=channels).eval()
    report = backbone.load_weights(net, tmp_path / "w.pth")
    images = torch.rand(2, channels, 64, 64)
    torch.testing.assert_close(net(images)["logits"], theirs(images), rtol=1e-4, atol=1e-5)
    assert report.fits and f"conv1.weight adapted from 3 channels to {channels}" in str(report)
    assert len(net.preprocessing.mean) == channels and net.preprocessing.assumed
    assert backbone.create("resnet18", in_chans=channels, weights=tmp_path / "w.pth").in_chans == channels


@pytest.mark.parametrize("name", FIRST)
def test_every_family_is_adapted(tmp_path, name):
    source = backbone.create(name, out_features=("conv1" if name == "vgg16" else "stem",))
    backbone.save_weights(source, tmp_path / "w.safetensors")
    net = backbone.create(name, out_features=source.out_features, in_chans=5)
    backbone.load_weights(net, tmp_path / "w.safetensors")
    expected = adapt_input_conv(5, source.state_dict()[FIRST[name]])
    assert torch.equal(net.state_dict()[FIRST[name]], expected)


def test_the_deep_stem_is_adapted(tmp_path):
    source = backbone.create("resnet18", stem="deep", out_features=("stem",))
    backbone.save_weights(source, tmp_path / "w.pth")
    net = backbone.create("resnet18", stem="deep", out_features=("stem",), in_chans=1)
    assert "averaged" not in str(backbone.load_weights(net, tmp_path / "w.pth"))  # nothing is known of the images
    assert torch.equal(net.conv1[0].weight, adapt_input_conv(1, source.conv1[0].weight))


def test_preprocessing_of_other_channels():
    gray, four = MSRA.for_channels(1), USUAL.for_channels(4)
    assert gray.channel_order == "L" and gray.mean == (sum(MSRA.mean) / 3,)
    assert four.channel_order == "bands" and four.mean == (*USUAL.mean, USUAL.mean[0]) and four.std[3] == USUAL.std[0]
    images = torch.randint(256, (2, 4, 5, 5), dtype=torch.uint8)
    plain = torch.stack([(images[:, i] / 255 - four.mean[i]) / four.std[i] for i in range(4)], 1)
    torch.testing.assert_close(four(images), plain)
    assert four.converted(channel_order="BGR") == four and Preprocessing.from_dict(four.to_dict()) == four
    for wrong in (
        ("L", 255, (0, 0), (1,)),
        ("bands", 255, (0, 0), (1,)),
        ("bands", 255, (), ()),
        ("RGB", 255, (0,), (1,)),
    ):
        with pytest.raises(backbone.WeightsError, match="preprocessing"):
            Preprocessing(*wrong)


@pytest.mark.parametrize("layout", WRITABLE)
def test_files_of_other_channels(tmp_path, layout):
    """Written in every layout, found again by their tensors, and loaded into a network of as many channels."""
    net = backbone.create("resnet18", in_chans=4)
    net.preprocessing = Preprocessing("bands", 255, (1, 2, 3, 4), (5, 6, 7, 8))
    notes = backbone.save_weights(net, tmp_path / "w.pth", layout=layout)
    assert any("4" in note for note in notes)
    again = backbone.create("resnet18", in_chans=4)
    backbone.load_weights(again, tmp_path / "w.pth")
    assert torch.equal(again.conv1.weight, net.conv1.weight) and again.preprocessing == net.preprocessing
    assert open_weights(tmp_path / "w.pth").metadata["in_chans"] == 4
    torch.save(torch.load(tmp_path / "w.pth", weights_only=False), tmp_path / "w.pth")
    done = convert(tmp_path / "w.pth", tmp_path / "out.safetensors", "torchvision")
    assert done.architecture == "resnet18"
    with pytest.raises(backbone.MisfitError, match="create the network with in_chans=4"):
        backbone.load_weights(backbone.create("resnet18"), tmp_path / "w.pth")
    with pytest.raises(backbone.MisfitError, match="create the network with in_chans=4"):
        backbone.load_weights(backbone.create("resnet18", in_chans=12), tmp_path / "w.pth")


def test_timms_and_torchvisions_own_networks_of_other_channels(tmp_path):
    theirs = torchvision.models.resnet18(num_classes=3)
    theirs.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    for number, state in enumerate((theirs.state_dict(), timm.create_model("resnet18", in_chans=1).state_dict())):
        torch.save(state, tmp_path / f"{number}.pth")
        net = backbone.create("resnet18", in_chans=1)
        assert backbone.load_weights(net, tmp_path / f"{number}.pth").fits
        assert torch.equal(net.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize(("suffix", "channels"), [(".ts", 1), (".pt2", 4), (".safetensors", 12)])
def test_exports_of_other_channels(tmp_path, suffix, channels):
    net = backbone.create("cifar_resnet20", in_chans=channels, out_features=("res2",)).eval()
    net.preprocessing = USUAL.for_channels(channels)
    bake = {} if suffix == ".safetensors" else {"bake_preprocessing": True}
    report = backbone.export(net, tmp_path / f"w{suffix}", input_size=(32, 48), **bake)
    assert f"1x{channels}x32x48" in report.differences
    if bake:
        assert report.metadata["input"]["shape"][1] == channels
        assert report.metadata["input"]["channel_order"] == ("L" if channels == 1 else "bands")
    json.dumps(report.to_dict())


def test_a_convolution_put_in_by_hand_settles_the_channels(tmp_path):
    net = backbone.create("cifar_resnet20", out_features=("stem",))
    net.conv1 = torch.nn.Conv2d(1, 16, 3, padding=1, bias=False)
    assert "1x1x32x48" in backbone.export(net, tmp_path / "w.ts", input_size=(32, 48)).differences


@pytest.mark.parametrize("channels", [1, 12])
def test_counts_of_other_channels(channels):
    """Only conv1 differs: 64 x channels x 7 x 7 weights, each used at 112 x 112 places."""
    from backbone.analysis import analyse

    usual, other = analyse("resnet18"), analyse("resnet18", in_chans=channels)
    weights = 64 * (channels - 3) * 49
    assert other.total("parameters") - usual.total("parameters") == weights
    assert other.total("macs") - usual.total("macs") == weights * 112 * 112

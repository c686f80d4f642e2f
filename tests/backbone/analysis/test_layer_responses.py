"""Layer responses against the layers run by hand; images from archives and folders; the files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from randomize import randomize
from torch.nn import functional as F

import backbone
from backbone.analysis import draw, layer_responses, network_responses, pair_weights, pictures, write_csv
from backbone.analysis.charts import made_up
from backbone.analysis.response_files import make_figure
from backbone.common.errors import ArchitectureError, DataError, UserError, WeightsError


def network(name: str, **keywords) -> backbone.Backbone:
    return randomize(backbone.create(name, **keywords)).eval()


def images(number: int = 6, side: int = 32) -> torch.Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(0))


def deviation(values: torch.Tensor) -> float:
    return values.double().std(correction=0).item()


@torch.no_grad()
@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain20"])
def test_basic_blocks_by_hand(name):
    """Behind BN, before ReLU and addition; every pixel of every image counts, in whatever batches they come."""
    net, x = network(name), images()
    expected = {"conv1": net.bn1(net.conv1(x))}
    y = expected["conv1"].relu()
    for stage in (1, 2, 3):
        for index, block in enumerate(net.get_submodule(f"layer{stage}")):
            first = block.bn1(block.conv1(y))
            second = block.bn2(block.conv2(first.relu()))
            expected |= {f"layer{stage}.{index}.conv1": first, f"layer{stage}.{index}.conv2": second}
            shortcut = 0 if block.plain else y if block.downsample is None else block.downsample(y)
            y = (second + shortcut).relu()
    measured = layer_responses(net, x.split(4))
    assert list(measured) == list(expected) and len(expected) == 19
    for layer, value in measured.items():
        assert value == pytest.approx(deviation(expected[layer]), rel=1e-4), layer


@torch.no_grad()
def test_preactivation_by_hand():
    """The first convolution's response is behind the norm that follows it; the last one has none."""
    net, x = network("preact_resnet18", out_features=["res2"]), images(2, 64)
    block, y = net.layer1[0], net.run_stem(x)
    first = block.bn2(block.conv1(block.bn1(y).relu()))
    second = block.conv2(first.relu())
    measured = layer_responses(net, [x])
    assert list(measured) == [f"layer1.{index}.conv{conv}" for index in (0, 1) for conv in (1, 2)]
    assert measured["layer1.0.conv1"] == pytest.approx(deviation(first), rel=1e-4)
    assert measured["layer1.0.conv2"] == pytest.approx(deviation(second), rel=1e-4)


@torch.no_grad()
def test_layers_without_a_norm_are_taken_before_relu():
    net, x = network("vgg16", out_features=["conv1"]), images(2)
    first = net.features[0](x)
    second = net.features[2](first.relu())
    expected = {"features.0": deviation(first), "features.2": deviation(second)}
    assert layer_responses(net, [x]) == pytest.approx(expected, rel=1e-4)


def test_bottlenecks_count_their_3x3_layers():
    layers = layer_responses(network("resnet50"), [images(1, 64)])
    assert len(layers) == 16 and all(name.endswith(".conv2") for name in layers)


def test_frozen_bn_is_seen_as_bn():
    net = network("cifar_resnet20")
    expected = layer_responses(net, [images()])
    assert layer_responses(backbone.freeze_norm(net), [images()]) == pytest.approx(expected, rel=1e-4)


def test_no_convolution_is_refused():
    with pytest.raises(ArchitectureError, match="no 3x3"):
        layer_responses(torch.nn.Conv2d(3, 1, 1), [images()])


def test_nan_is_told_with_its_layer():
    net = network("cifar_resnet20")
    net.layer2[1].bn1.weight.data[0] = float("nan")
    with pytest.raises(DataError, match=r"output of layer2\.1\.conv1"):
        layer_responses(net, [images()])


def test_untrained_networks_respond_with_one():
    """BN has the statistics of these very images; the caller's random state is left alone."""
    state = torch.get_rng_state()
    responses = network_responses("cifar_plain20", made_up(32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert not responses.trained and responses.label == "cifar_plain20 (untrained)"
    assert all(value == pytest.approx(1, abs=1e-3) for value in responses.layers.values())


def test_the_trained_resnet20(shared_data):
    """Published weights on real images respond, roughly, as the affine terms of their BN say."""
    weights = shared_data / "cifar_resnet_weights" / "resnet20-12fca82f.th"
    found, words = pictures(shared_data / "cifar10" / "cifar10_lossless_partial.npz", number=500, side=32)
    assert len(found) == 164 and words == "164 images, array test_batch_first164 of cifar10_lossless_partial.npz"
    responses = network_responses("cifar_resnet20", found, weights=weights)
    assert responses.trained and len(responses.layers) == 19 and responses.images == 164
    net = backbone.create("cifar_resnet20")
    backbone.load_weights(net, weights)
    for layer, value in responses.layers.items():
        # Were each channel normalised exactly: the mean variance in the channels plus the variance of their means.
        norm = net.get_submodule(layer.replace("conv", "bn"))
        expected = (norm.weight.square().mean() + norm.bias.var(correction=0)).sqrt().item()
        assert value == pytest.approx(expected, rel=0.1), layer


def test_archives(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 6), dtype=np.uint8)
    for layout in (array, array.transpose(0, 2, 3, 1)):
        np.savez(tmp_path / "a.npz", labels=np.zeros(5, np.uint8), x=layout)
        found, words = pictures(tmp_path / "a.npz", number=3, side=32)
        assert np.array_equal(found.numpy(), array[:3]) and words.startswith("3 images, array x of a.npz")
    rows = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    np.savez(tmp_path / "b.npz", train=rows, test=rows[:2])
    found, words = pictures(tmp_path / "b.npz", number=9, side=32)
    assert np.array_equal(found.numpy().reshape(2, -1), rows[:2]) and "array test " in words


def test_folders(tmp_path: Path):
    import cv2

    for index in range(6):
        picture = np.zeros((10, 12, 3), np.uint8)
        picture[..., 2] = 40 * index  # red, in OpenCV's order
        (tmp_path / f"class{index % 2}").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"class{index % 2}" / f"{index}.png"), picture)
    found, words = pictures(tmp_path, number=3, side=8)
    assert found.shape == (3, 3, 8, 8) and found.dtype == torch.uint8 and words.startswith("3 images of ")
    assert found[:, 0, 0, 0].tolist() == [0, 160, 120] and not found[:, 1:].any()
    assert len(pictures(tmp_path, number=100, side=8)[0]) == 6


def test_made_up_images_are_always_the_same():
    found, words = pictures(None, number=4, side=32)
    assert found.dtype == torch.uint8 and found.shape == (4, 3, 32, 32) and "no photographs" in words
    assert torch.equal(found, made_up(4, 32)) and F.avg_pool2d(found.float(), 8).std() > 20


def test_mistakes_with_images(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "a.txt").write_text("text")
    np.savez(tmp_path / "floats.npz", x=np.zeros((2, 3, 4, 4), np.float32))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    for path, said in {
        "missing": "no such file or folder",
        "empty": "no image files",
        "text.npz": "cannot be read as an .npz",
        "objects.npz": "the array 'x' cannot be read",
        "floats.npz": r"no array of uint8 images .* \{'x': \(2, 3, 4, 4\)\}",
        "a.txt": "must be a folder of image files or an .npz",
    }.items():
        with pytest.raises(DataError, match=said) as caught:
            pictures(tmp_path / path, number=4, side=32)
        assert "\n" not in str(caught.value) and path in str(caught.value)
    with pytest.raises(DataError, match="at least 1 image"):
        pictures(None, number=0, side=32)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["a.th"], "takes NETWORK=FILE"),
        (["cifar_resnet20="], "takes NETWORK=FILE"),
        (["cifar_resnet2=a.th"], "unknown backbone 'cifar_resnet2'; did you mean 'cifar_resnet"),
        (["resnet50=a.th"], "resnet50 is not among the networks"),
        (["cifar_resnet20=missing.th"], "no such file"),
        ([f"cifar_resnet20={__file__}"] * 2, "given twice"),
    ],
)
def test_mistakes_in_pairs(pairs, said):
    with pytest.raises(UserError, match=said):
        pair_weights(pairs, ["cifar_resnet20", "cifar_plain20"])


def test_weights_of_another_network(tmp_path):
    backbone.save_weights(backbone.create("cifar_resnet32"), tmp_path / "r32.pth", layout="torchvision")
    with pytest.raises(WeightsError, match="does not fit cifar_resnet20"):
        network_responses("cifar_resnet20", made_up(4, 32), weights=tmp_path / "r32.pth")


def test_files(tmp_path):
    measured = [network_responses(name, made_up(8, 32)) for name in ("cifar_plain20", "cifar_resnet20")]
    write_csv(tmp_path / "a.csv", measured)
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(rows) == 38 and {row["weights"] for row in rows} == {"untrained"}
    for responses in measured:
        own = [row for row in rows if row["network"] == responses.network]
        assert [row["name"] for row in own] == list(responses.layers)
        assert [float(row["std"]) for row in own] == pytest.approx(list(responses.layers.values()), rel=1e-5)
        by_rank = sorted(own, key=lambda row: int(row["rank"]))
        assert [row["name"] for row in by_rank] == [name for name, _ in responses.ranked()]
    for panel in make_figure(measured, "made up").axes:
        bottom, top = panel.get_ylim()
        highest = max(max(line.get_ydata()) for line in panel.lines)
        # Untrained, every layer responds with 1: the curves are seen below the frame, not under it.
        assert bottom == 0 and highest < 0.97 * top and highest == pytest.approx(1, abs=0.01)
        assert all(tick == int(tick) for tick in panel.get_xticks())
    draw(tmp_path / "a.png", measured, "made up")
    from backbone.common.images import read_image

    picture = read_image(tmp_path / "a.png")
    assert picture.shape[0] > 500 and (picture < 250).any(axis=2).mean() > 0.005

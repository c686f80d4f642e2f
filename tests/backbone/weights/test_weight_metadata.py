"""What weights ask beside their shapes: set on the network, or held against it; reports; which network a file is of."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from other_projects import filled
from torch import nn

import backbone
from backbone.common.preprocessing import IMAGENET, MSRA, USUAL, Preprocessing
from backbone.weights import WeightMetadata, WeightsFile, candidates, open_weights, read_weight_metadata, save_weights
from backbone.weights.identify import build, find_backbones
from backbone.weights.weight_metadata import options_of


def save(path: Path, name: str = "resnet50", layout: str = "torchvision", **keywords: object) -> Path:
    keywords = {"out_features": ("res2",), **keywords} if "num_classes" not in keywords else keywords
    save_weights(filled(lambda: backbone.create(name, **keywords)), path, layout=layout)
    return path


def refused(network: nn.Module, path: Path, **keywords: bool) -> str:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(backbone.WeightsError) as caught:
        backbone.load_weights(network, path, **keywords)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


# -- stride, shortcuts, pooling


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_stride_in_the_metadata(stride_in_1x1, tmp_path):
    path = save(tmp_path / "a.pth", stride_in_1x1=stride_in_1x1)
    assert read_weight_metadata(path).stride_in_1x1 is stride_in_1x1
    fitting = backbone.create("resnet50", out_features=("res2",), stride_in_1x1=stride_in_1x1)
    assert backbone.load_weights(fitting, path).fits
    other = backbone.create("resnet50", out_features=("res2",), stride_in_1x1=not stride_in_1x1)
    assert f"create it with stride_in_1x1={stride_in_1x1}" in refused(other, path)
    refused(other, path, strict=False)


@pytest.mark.parametrize(
    ("made", "wanted", "said"),
    [
        ({"dilation_style": "mmdetection", "output_stride": 16}, {"output_stride": 16}, "MMDetection's"),
        ({"output_stride": 16}, {"dilation_style": "mmdetection", "output_stride": 8}, "torchvision's"),
        ({"output_stride": 16}, {"output_stride": 8}, ["trained with output_stride=16 (dilated), the network has 8"]),
        ({"output_stride": 16}, {}, ["trained with output_stride=16 (dilated), the network has 32"]),
        ({"output_stride": 16}, {"output_stride": 16}, []),
        # A network that is not dilated serves either.
        ({"dilation_style": "mmdetection"}, {"output_stride": 16}, []),
        ({}, {"dilation_style": "mmdetection", "output_stride": 16}, []),
    ],
)
def test_dilation_in_the_metadata(made, wanted, said, tmp_path):
    path = save(tmp_path / "a.safetensors", out_features=("res5",), **made)
    network = backbone.create("resnet50", out_features=("res5",), **wanted)
    if isinstance(said, list):
        assert backbone.load_weights(network, path).notes == said
    else:
        assert f"the weights are of blocks with dilation as {said}" in refused(network, path)


@pytest.mark.parametrize(
    "keywords",
    [
        {"shortcut": "A"},
        {"stem": "deep", "average_down": True, "output_stride": 8, "dilation_style": "mmdetection"},
        {"shortcut": "C", "norm": "gn", "ceil_pool": True},
    ],
)
def test_every_keyword_that_shapes_the_network_is_in_the_file(keywords, tmp_path):
    """The network that is built from the file alone computes the same."""
    path = save(tmp_path / "a.pth", "resnet18", num_classes=7, **keywords)
    metadata = open_weights(path).metadata
    assert {key: metadata[key] for key in keywords} == keywords and metadata["num_classes"] == 7
    made, again = backbone.create("resnet18", num_classes=7, **keywords), build(open_weights(path), "resnet18")
    for network in (made, again):
        assert backbone.load_weights(network.eval(), path).notes == []
    images = torch.randn(1, 3, 45, 38)
    for stage, value in made(images).items():
        assert torch.equal(again(images)[stage], value)


@pytest.mark.parametrize(("made", "wanted"), [("A", "B"), ("B", "A"), ("B", "C"), ("C", "B")])
@pytest.mark.parametrize("own", [True, False])
def test_another_option_of_the_shortcuts_is_named(made, wanted, own, tmp_path):
    network = backbone.create("resnet18", shortcut=made)
    save_weights(network, tmp_path / "a.pth") if own else torch.save(network.state_dict(), tmp_path / "a.pth")
    message = refused(backbone.create("resnet18", shortcut=wanted), tmp_path / "a.pth")
    assert message.endswith(f'; create the network with shortcut="{made}"')


def test_nothing_is_said_of_what_is_not_known(tmp_path):
    """The same names serve both placements: detectron2's MSRA weights in torchvision's names, for one."""
    state = backbone.create("resnet50", out_features=("res2",)).state_dict()
    torch.save(state, tmp_path / "a.pth")
    for stride_in_1x1 in (True, False):
        for ceil_pool in (True, False):
            keywords = {"stride_in_1x1": stride_in_1x1, "ceil_pool": ceil_pool}
            network = backbone.create("resnet50", out_features=("res2",), **keywords)
            report = backbone.load_weights(network, tmp_path / "a.pth")
            assert len(report.notes) == stride_in_1x1 and network.ceil_pool is ceil_pool
            # Torchvision's own weights would give other features, and nothing in the file tells.
            assert all("stride_in_1x1 True kept; the file does not say" in note for note in report.notes)
    assert read_weight_metadata(tmp_path / "a.pth") == WeightMetadata(preprocessing=IMAGENET)


def test_create_warns_of_what_it_cannot_report(tmp_path):
    torch.save(backbone.create("resnet50", out_features=("res2",)).state_dict(), tmp_path / "a.pth")
    keywords = {"out_features": ("res2",), "weights": tmp_path / "a.pth"}
    with pytest.warns(UserWarning, match="a.pth: stride_in_1x1 True kept; the file does not say"):
        backbone.create("resnet50", stride_in_1x1=True, **keywords)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone.create("resnet50", **keywords)


@pytest.mark.parametrize("layout", ["timm", "mmdet", "huggingface"])
def test_averaging_shortcuts_are_seen_in_the_names(layout, tmp_path):
    """Their tensors have the shapes of shortcuts with a stride."""
    keywords = {"stem": "deep", "average_down": True, "out_features": ("res3",)}
    network = filled(lambda: backbone.create("resnet50", **keywords))
    content = dict(open_weights_of_peer(network, layout))
    torch.save(content, tmp_path / "a.pth")
    assert read_weight_metadata(tmp_path / "a.pth").average_down is True
    other = backbone.create("resnet50", **{**keywords, "average_down": False})
    assert "create it with average_down=True" in refused(other, tmp_path / "a.pth")
    assert backbone.load_weights(backbone.create("resnet50", **keywords), tmp_path / "a.pth").fits


def open_weights_of_peer(network: nn.Module, layout: str) -> dict:
    """A file without our metadata."""
    from backbone.weights.save import converted

    return converted(network, layout)[0]


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "cifar_resnet20"])
def test_pooling_is_set_on(name, tmp_path):
    made = {"ceil_pool": True} if name == "resnet18" else {}
    path = save(tmp_path / "a.npz", name, out_features=("res2",) if name != "vgg16" else ("conv2",), **made)
    weights = open_weights(path)
    assert weights.weight_metadata.ceil_pool is {"resnet18": True, "vgg16": False, "cifar_resnet20": None}[name]
    other = {"resnet18": False, "vgg16": True, "cifar_resnet20": True}[name]
    from dataclasses import replace

    network = backbone.create(name, out_features=weights.metadata.get("out") or default_stage(name))
    report = backbone.load_weights(network, replace(weights, weight_metadata=WeightMetadata(ceil_pool=other)))
    changed = name == "vgg16"
    assert bool(report.notes) is changed
    assert options_of(network)["ceil_pool"] is (None if name == "cifar_resnet20" else changed)
    # And back.
    backbone.load_weights(network, replace(weights, weight_metadata=WeightMetadata(ceil_pool=not changed)))
    backbone.load_weights(network, replace(weights, weight_metadata=WeightMetadata(ceil_pool=False)))
    if hasattr(network, "maxpool"):
        assert network.maxpool.padding == 1 and not network.maxpool.ceil_mode
    fresh = backbone.create(name, out_features=default_stage(name))
    images = torch.randn(1, 3, 45, 38)
    fresh.load_state_dict(network.state_dict())
    for value, truth in zip(network.eval()(images).values(), fresh.eval()(images).values()):
        assert torch.equal(value, truth)


def default_stage(name: str) -> tuple[str]:
    return ("conv2",) if name == "vgg16" else ("res2",)


def test_preprocessing_is_attached_and_replaced(tmp_path):
    path = save(tmp_path / "a.pth")
    network = backbone.create("resnet50", out_features=("res2",))
    backbone.load_weights(network, path)
    assert network.preprocessing == USUAL and network.preprocessing.assumed
    plain = {name.replace("conv1.weight", "conv1.weight"): value for name, value in network.state_dict().items()}
    unknown = WeightsFile("a", "torch", "detectron2", plain, WeightMetadata())
    backbone.load_weights(network, unknown)
    assert network.preprocessing is None


# -- preprocessing itself


def test_preprocessing_of_pixels():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    found = IMAGENET(images)
    expected = torch.stack([(images[:, i] / 255 - IMAGENET.mean[i]) / IMAGENET.std[i] for i in range(3)], 1)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-5)
    found = MSRA(images[0])
    expected = torch.stack([images[0, 2 - i] - MSRA.mean[i] for i in range(3)])
    assert torch.allclose(found, expected)
    assert torch.allclose(IMAGENET.converted(value_range=255)(images), IMAGENET(images), atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ((0, 0, float("inf")), (1, 1, 1), "mean must be finite"),
        ((0, 0, 0), (1, 1, float("nan")), "std must be finite"),
        ((0, 0, 0), (1, 0, 1), "std must be above 0"),
        ((0, 0), (1, 1, 1), "mean must be three numbers"),
    ],
)
def test_numbers_that_are_no_preprocessing(mean, std, said):
    with pytest.raises(backbone.WeightsError, match=said):
        Preprocessing("RGB", 1, mean, std)


def test_preprocessing_in_other_units():
    bytes_ = IMAGENET.converted(value_range=255)
    assert bytes_.mean == pytest.approx((123.675, 116.28, 103.53)) and bytes_ != IMAGENET
    turned = IMAGENET.converted(channel_order="BGR")
    assert turned.mean == (0.406, 0.456, 0.485)
    assert Preprocessing.from_dict(MSRA.to_dict()) == MSRA


# -- classifiers


def test_a_new_classifier(tmp_path):
    path = save(tmp_path / "a.pth", "resnet18", num_classes=10)
    network = backbone.create("resnet18", num_classes=20)
    message = refused(network, path)
    assert "fc.weight [10, 512] for [20, 512]" in message and "new_classifier=True" in message
    before = network.fc.weight.clone()
    report = backbone.load_weights(network, path, new_classifier=True)
    assert report.fits and report.notes == ["classifier initialised anew"]
    assert not torch.equal(network.fc.weight, before) and network.fc.weight.abs().max() <= 512**-0.5
    # Asked for, it is new even where the file's would fit; and where the file has none.
    network = backbone.create("resnet18", num_classes=10)
    backbone.load_weights(network, path, new_classifier=True)
    assert not torch.equal(network.fc.weight, open_weights(path).tensors["fc.weight"])
    save(path, "resnet18", out_features=("res5",))
    assert "new_classifier=True" in refused(network, path)
    assert backbone.load_weights(network, path, new_classifier=True).fits
    with pytest.raises(backbone.WeightsError, match="create it with num_classes"):
        backbone.load_weights(backbone.create("resnet18"), path, new_classifier=True)


def test_a_new_classifier_does_not_hide_other_faults(tmp_path):
    path = save(tmp_path / "a.pth", "resnet34", num_classes=10)
    assert "resnet34" in refused(backbone.create("resnet18", num_classes=20), path, new_classifier=True)


# -- reports and messages


def test_a_report(tmp_path):
    path = save(tmp_path / "a.pth", "resnet18", num_classes=10)
    tensors = dict(torch.load(path))
    tensors["conv9.weight"] = tensors.pop("conv1.weight")
    torch.save(tensors, path)
    network = backbone.create("resnet18", num_classes=20)
    report = backbone.load_weights(network, path, strict=False)
    lines = report.table().splitlines()
    assert len(lines) == 2 + 4
    assert "| conv1.weight | missing | -" in lines[2] and "| conv9.weight | extra   | yes" in lines[3]
    assert "[10, 512]" in lines[4] and "[20, 512]" in lines[4]
    text = str(report)
    assert "torch file, torchvision layout, " in text and "RGB 0..1" in text and "(usual for the layout)" in text
    assert "\n" not in text
    with pytest.raises(backbone.WeightsError) as caught:
        backbone.load_weights(network, path)
    assert caught.value.report.table() == report.table()
    clean = backbone.load_weights(backbone.create("resnet18", num_classes=10), save(path, "resnet18", num_classes=10))
    assert clean.table() == "" and "stride in 3x3; pooling with padding" in str(clean)


@pytest.mark.parametrize(
    ("made", "wanted", "said"),
    [
        (("resnet34", {}), ("resnet18", {}), "are those of resnet34"),
        (("resnet18", {"stem": "deep"}), ("resnet18", {}), 'create the network with stem="deep"'),
        (("resnet18", {}), ("resnet18", {"stem": "deep"}), 'create the network with stem="conv7"'),
        (("cifar_resnet20", {}), ("resnet18", {}), "cifar_resnet20 or cifar_plain20"),
        (("vgg16", {}), ("vgg16_bn", {}), "does not fit vgg16_bn"),
    ],
)
def test_hints(made, wanted, said, tmp_path):
    state = backbone.create(made[0], **made[1]).state_dict()
    torch.save(state, tmp_path / "a.pth")
    assert said in refused(backbone.create(wanted[0], **wanted[1]), tmp_path / "a.pth")


def test_a_file_that_says_it_is_another_network(tmp_path):
    """A plain net's tensors fit a ResNet with option A; the file knows better."""
    path = save(tmp_path / "a.pth", "cifar_plain20")
    network = backbone.create("cifar_resnet20", out_features=("res2",))
    assert "holds cifar_plain20, not cifar_resnet20" in refused(network, path)
    assert backbone.load_weights(network, path, strict=False).fits


def test_a_backbone_inside_a_detector(tmp_path):
    state = filled(lambda: backbone.create("resnet18", out_features=("res2",))).state_dict()
    for prefix in ("backbone.bottom_up.", "backbone.body.", "module.backbone."):
        tensors = {prefix + name: value for name, value in state.items()}
        tensors |= {"roi_heads.box.weight": torch.ones(2), f"{prefix.split('.')[0]}.fpn.weight": torch.ones(1)}
        torch.save({"model": tensors}, tmp_path / "a.pth")
        network = backbone.create("resnet18", out_features=("res2",))
        report = backbone.load_weights(network, tmp_path / "a.pth")
        assert len(report.left_out) == 2 and report.fits
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


# -- which network


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("resnet50", {"num_classes": 1000}),
        ("resnet50", {"stem": "deep", "norm": "gn"}),
        ("resnet18", {"shortcut": "C"}),
        ("resnet18", {"shortcut": "A", "num_classes": 10}),
        ("resnet101", {}),
        ("wide_resnet50_2", {}),
        ("resnext101_64x4d", {}),
        ("preact_resnet34", {}),
        ("cifar_resnet56", {"num_classes": 10, "shortcut": "B"}),
        ("cifar_preact_resnet164", {}),
        ("vgg16", {}),
        ("vgg16_bn", {"num_classes": 21}),
    ],
)
def test_networks_are_found_by_their_shapes(name, keywords):
    with torch.device("meta"):
        network = backbone.create(name, **keywords)
        weights = WeightsFile("a", "torch", "torchvision", network.state_dict(), WeightMetadata())
        assert find_backbones(weights)[0] == name
        again = build(weights, name)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_a_network_that_is_not_known(tmp_path):
    torch.save({"conv1.weight": torch.ones(3), "layer1.0.conv1.weight": torch.ones(3)}, tmp_path / "a.pth")
    with pytest.raises(backbone.WeightsError, match="those of no known network"):
        candidates(open_weights(tmp_path / "a.pth"))

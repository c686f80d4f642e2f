"""OpenMMLab's names of the same networks: by its published sources, and by the real MMDetection."""

from __future__ import annotations

import pytest
import torch
from other_projects import empty, filled, same
from randomize import relative_error

import backbone
from backbone.weights import LAYOUTS, save_weights

TOLERANCE = 1e-5
BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def mmdet_names(depths: tuple[int, ...], convolutions: int, stem: str = "plain", pooled: bool = False) -> set[str]:
    """Names of MMDetection's ResNet, as mmdet/models/backbones/resnet.py and mmdet/models/layers/res_layer.py (3.3)
    make them: a deep stem is one sequence `stem` of conv, norm, ReLU; a shortcut that averages starts with pooling, in
    the first stage too."""
    names = set()
    if stem == "plain":
        names |= {"conv1.weight", *(f"bn1.{part}" for part in BN)}
    else:
        names |= {f"stem.{index}.weight" for index in (0, 3, 6)}
        names |= {f"stem.{index}.{part}" for index in (1, 4, 7) for part in BN}
    for stage, blocks in enumerate(depths, 1):
        for index in range(blocks):
            place = f"layer{stage}.{index}"
            for number in range(1, convolutions + 1):
                names |= {f"{place}.conv{number}.weight", *(f"{place}.bn{number}.{part}" for part in BN)}
            if index == 0 and (stage > 1 or convolutions == 3):
                first = int(pooled)
                names |= {f"{place}.downsample.{first}.weight"}
                names |= {f"{place}.downsample.{first + 1}.{part}" for part in BN}
    return names


MMDET = [
    ("resnet18", {}, mmdet_names((2, 2, 2, 2), 2)),
    ("resnet50", {"stride_in_1x1": True}, mmdet_names((3, 4, 6, 3), 3)),
    ("resnet101", {"stem": "deep"}, mmdet_names((3, 4, 23, 3), 3, stem="deep")),  # ResNetV1c
    ("resnet50", {"stem": "deep", "average_down": True}, mmdet_names((3, 4, 6, 3), 3, "deep", pooled=True)),  # V1d
]


@pytest.mark.parametrize(("name", "keywords", "names"), MMDET)
def test_mmdetections_names(name, keywords, names, tmp_path):
    source = filled(lambda: backbone.create(name, num_classes=3, **keywords))
    save_weights(source, tmp_path / "mm.pth", layout="mmdet")
    content = torch.load(tmp_path / "mm.pth", weights_only=True)
    assert set(content) == names
    # A detector's checkpoint has them behind `backbone.`, with its head's beside them.
    wrapped = {f"backbone.{key}": value for key, value in content.items()}
    torch.save({"state_dict": wrapped | {"bbox_head.fc.weight": torch.ones(1)}, "meta": {}}, tmp_path / "detector.pth")
    network = backbone.create(name, **keywords)
    report = backbone.load_weights(network, tmp_path / "detector.pth")
    assert report.left_out == ["bbox_head.fc.weight"] and report.fits
    same(source, network)


@pytest.mark.parametrize("keywords", [{}, {"stem": "deep", "average_down": True}])
@pytest.mark.proves("mmpretrain", "backbones", "in, out", "names of MMPretrain 1.2's source")
def test_mmpretrains_names(keywords, tmp_path):
    """mmpretrain/models/backbones/resnet.py (1.2): a deep stem of ConvModules, no pooling where the stride is 1."""
    source = filled(lambda: backbone.create("resnet50", num_classes=3, **keywords))
    save_weights(source, tmp_path / "mm.pth", layout="mmpretrain")
    found = set(torch.load(tmp_path / "mm.pth", weights_only=True))
    expected = mmdet_names((3, 4, 6, 3), 3, "plain", pooled=False)
    if keywords:
        expected -= {"conv1.weight", *(f"bn1.{part}" for part in BN)}
        expected |= {f"stem.{index}.conv.weight" for index in range(3)}
        expected |= {f"stem.{index}.bn.{part}" for index in range(3) for part in BN}
        for stage in (2, 3, 4):
            moved = {name for name in expected if name.startswith(f"layer{stage}.0.downsample.")}
            expected -= moved
            expected |= {name.replace("sample.1", "sample.2").replace("sample.0", "sample.1") for name in moved}
    assert found == {f"backbone.{name}" for name in expected} | {"head.fc.weight", "head.fc.bias"}
    network = backbone.create("resnet50", num_classes=3, **keywords)
    report = backbone.load_weights(network, tmp_path / "mm.pth")
    assert report.layout == "mmdet" and report.fits
    same(source, network)


DILATED = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
AS_DILATED = {"output_stride": 8, "dilation_style": "mmdetection"}
V1D = {"stem": "deep", "average_down": True}
REAL_MMDET = [
    ("ResNet", 18, {}, {}),
    ("ResNet", 18, DILATED, AS_DILATED),
    ("ResNet", 50, {"style": "caffe"}, {"stride_in_1x1": True}),
    ("ResNet", 50, DILATED, AS_DILATED),
    ("ResNetV1d", 50, {}, V1D),
    ("ResNetV1d", 50, DILATED, V1D | AS_DILATED),
]


@pytest.mark.parametrize(("kind", "depth", "theirs", "keywords"), REAL_MMDET)
@pytest.mark.proves("mmdet", "backbones", "in, out", "features of MMDetection's ResNet and ResNetV1d, dilated too")
def test_real_mmdetection(kind, depth, theirs, keywords):
    """Features of the real package, in and out; tools/install_mmdetection.py installs it."""
    resnet = pytest.importorskip("mmdet.models.backbones.resnet")
    peer = filled(lambda: getattr(resnet, kind)(depth=depth, **theirs))
    network = empty(lambda: backbone.create(f"resnet{depth}", **keywords))
    layout = LAYOUTS["mmdet"]
    network.load_state_dict(layout.to_ours(peer.state_dict(), {}), strict=True)
    peer.load_state_dict(layout.from_ours(network.state_dict(), network), strict=True)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for value, truth in zip(network(images).values(), peer(images), strict=True):
            assert relative_error(value, truth) < TOLERANCE


def test_group_norm_in_mmdetections_names(tmp_path):
    network = filled(lambda: backbone.create("resnet18", norm="gn"))
    save_weights(network, tmp_path / "a.pth", layout="mmdet")
    assert "layer1.0.gn2.weight" in torch.load(tmp_path / "a.pth", weights_only=True)
    again = backbone.create("resnet18", norm="gn")
    assert backbone.load_weights(again, tmp_path / "a.pth").layout == "mmdet"
    same(network, again)

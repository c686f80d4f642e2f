"""Whole networks of torchvision and MMSegmentation, read from their own files, give the logits of their own code."""

from __future__ import annotations

import pytest
import torch
from test_segmentation_networks import config_of, randomised
from torch import nn
from torchvision.models import segmentation as peers

from backbone.common.errors import ConfigError, WeightsError
from backbone.segmentation.networks import build
from backbone.segmentation.projects import refuse_name
from backbone.segmentation.weights import WEIGHT_KEYS, fit_head, load_whole, open_starting_weights

CLASSES = [f"class {index}" for index in range(5)]
IMAGES = torch.randn(2, 3, 65, 49, generator=torch.Generator().manual_seed(0))


def ours_of(path, given=(), testing: bool = True, **keys) -> tuple[nn.Module, object, list[str]]:
    """Return our network with a file's weights, its config and what was noted, from a config of another network."""
    weights = open_starting_weights(str(path))
    config = config_of(MODEL__NAME="resnet18", **keys)
    config, notes = fit_head(config, weights, given, testing=testing)
    config, set_ = WEIGHT_KEYS.resolve(config, weights.wanted(given), str(path), given)
    network = build(config, len(CLASSES))
    load_whole(network, weights, weights.classes or CLASSES)
    return network.eval(), config, [*notes, *set_, *weights.notes]


@pytest.mark.proves("torchvision", "FCN, DeepLabV3", "in", "logits of torchvision's own networks and auxiliary heads")
@pytest.mark.parametrize("peer", ["fcn_resnet101", "deeplabv3_resnet50"])
def test_torchvisions_networks_set_the_config(peer, tmp_path):
    make = getattr(peers, peer)
    theirs = randomised(make(weights=None, weights_backbone=None, num_classes=len(CLASSES), aux_loss=True))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours, config, notes = ours_of(tmp_path / "theirs.pth", MODEL__DILATION_STYLE="mmdetection", INPUT__FORMAT="BGR")
    assert (peer.partition("_")[2], 8) == (config.MODEL.NAME, config.MODEL.OUTPUT_STRIDE)
    assert peer.partition("_")[0] == config.MODEL.HEAD.NAME and config.INPUT.FORMAT == "RGB"
    assert any("taken for torchvision's, of output stride 8" in note for note in notes)
    with torch.no_grad():
        expected, found = theirs(IMAGES), ours(IMAGES)["out"]
        features = ours.backbone(IMAGES)
        auxiliary = ours._enlarge(ours.aux_classifier(features["res4"]), IMAGES.shape[-2:])
    torch.testing.assert_close(found, expected["out"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(auxiliary, expected["aux"], rtol=1e-4, atol=1e-4)


def test_the_command_line_may_not_name_another_network(tmp_path):
    tensors = build(config_of(MODEL__NAME="resnet18"), 5).state_dict()
    torch.save(tensors, tmp_path / "fcn.pth")
    with pytest.raises(ConfigError, match="MODEL.HEAD.NAME is deeplabv3, but .*fcn.pth has a head of fcn"):
        weights = open_starting_weights(str(tmp_path / "fcn.pth"))
        weights.metadata["output_stride"] = 16
        config = config_of(MODEL__NAME="resnet18", MODEL__HEAD__NAME="deeplabv3")
        fit_head(config, weights, {"MODEL.HEAD.NAME"}, testing=False)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large:COCO_WITH_VOC_LABELS_V1"])
def test_other_networks_are_refused_by_name(name):
    name = f"torchvision:{name}"
    with pytest.raises(WeightsError, match="no segmentation network of this kind here; of torchvision's, FCN and"):
        refuse_name(name)
    for known in ("torchvision:fcn_resnet50", "torchvision:resnet50", "net.pth", ""):
        refuse_name(known)


def test_other_networks_are_refused_by_their_tensors(tmp_path):
    theirs = peers.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save(theirs.state_dict(), tmp_path / "lraspp.pth")
    with pytest.raises(WeightsError, match="a segmentation network on a network that is no ResNet"):
        open_starting_weights(str(tmp_path / "lraspp.pth"))


@pytest.mark.parametrize(
    ("names", "head", "said"),
    [
        (("sep_bottleneck.0.depthwise_conv.conv.weight",), None, "head DeepLabV3[+] has no counterpart here; FCN"),
        (("linear_pred.weight",), {"type": "SegformerHead"}, "head SegformerHead has no counterpart here"),
        (("convs.0.conv.weight",), None, "head with conv_seg.weight, convs.0.conv.weight has no counterpart here"),
        (("convs.0.conv.weight", "conv_cat.conv.weight"), {"type": "FCNHead", "dilation": 6}, "a dilation of 6"),
        (("psp_modules.0.1.conv.weight",), {"type": "PSPHead"}, "gives one score a pixel, for a threshold"),
    ],
)
def test_other_heads_of_mmsegmentation_are_refused_by_name(names, head, said, tmp_path):
    tensors = {f"decode_head.{name}": torch.zeros(1, 1, 1, 1) for name in ("conv_seg.weight", *names)}
    meta = {"cfg": f"model = dict(decode_head={head!r})"} if head else {}
    torch.save({"meta": meta, "state_dict": tensors}, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match=said):
        open_starting_weights(str(tmp_path / "theirs.pth"))


# -- MMSegmentation: what its heads compute, written with torch's functions, and its own code where it is installed


def plain_conv(x, tensors, name, dilation=1):
    weight = tensors[f"{name}.conv.weight"]
    x = nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2 * dilation, dilation=dilation)
    parts = (tensors[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return nn.functional.batch_norm(x, *parts).relu()


def grow(x, like, corners):
    return nn.functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=corners)


def plain_head(head, x, tensors, corners):
    t = {name.removeprefix("decode_head."): value for name, value in tensors.items()}
    if head == "fcn":
        y = plain_conv(plain_conv(x, t, "convs.0"), t, "convs.1")
        y = plain_conv(torch.cat([x, y], 1), t, "conv_cat")
    elif head == "deeplabv3":
        mean = grow(plain_conv(x.mean((2, 3), keepdim=True), t, "image_pool.1"), x, corners)
        views = [plain_conv(x, t, f"aspp_modules.{i}", rate) for i, rate in enumerate((1, 12, 24, 36))]
        y = plain_conv(torch.cat([mean, *views], 1), t, "bottleneck")
    else:
        pools = [nn.functional.adaptive_avg_pool2d(x, scale) for scale in (1, 2, 3, 6)]
        views = [grow(plain_conv(pool, t, f"psp_modules.{i}.1"), x, corners) for i, pool in enumerate(pools)]
        y = plain_conv(torch.cat([x, *views], 1), t, "bottleneck")
    return nn.functional.conv2d(y, t["conv_seg.weight"], t["conv_seg.bias"])


SETTINGS = {"MODEL__OUTPUT_STRIDE": 8, "MODEL__STEM": "deep", "MODEL__HEAD__STYLE": "mmsegmentation"}


@pytest.mark.parametrize(("head", "corners"), [("fcn", False), ("deeplabv3", False), ("pspnet", True)])
def test_heads_compute_what_mmsegmentations_do(head, corners):
    keys = {**SETTINGS, "MODEL__NAME": "resnet18", "MODEL__HEAD__NAME": head, "MODEL__HEAD__ALIGN_CORNERS": corners}
    network = randomised(build(config_of(**keys), 5))
    tensors = {name.replace("classifier.", "decode_head."): value for name, value in network.state_dict().items()}
    with torch.no_grad():
        x = network.backbone(IMAGES)["res5"]
        expected = grow(plain_head(head, x, tensors, corners), IMAGES, corners)
        torch.testing.assert_close(network(IMAGES)["out"], expected, rtol=1e-4, atol=1e-5)


def mm_config(head: str, corners: bool) -> dict:
    norm = {"type": "BN", "requires_grad": True}
    common = {"num_classes": 5, "norm_cfg": norm, "align_corners": corners, "dropout_ratio": 0.1}
    types = {"fcn": "FCNHead", "deeplabv3": "ASPPHead", "pspnet": "PSPHead"}
    decode = {"type": types[head], "in_channels": 2048, "in_index": 3, "channels": 512, **common}
    decode |= {"dilations": (1, 12, 24, 36)} if head == "deeplabv3" else {}
    backbone = {"type": "ResNetV1c", "depth": 50, "num_stages": 4, "out_indices": (0, 1, 2, 3), "style": "pytorch"}
    backbone |= {"dilations": (1, 1, 2, 4), "strides": (1, 2, 1, 1), "norm_cfg": norm, "contract_dilation": True}
    auxiliary = {"type": "FCNHead", "in_channels": 1024, "in_index": 2, "channels": 256, "num_convs": 1}
    auxiliary |= {"concat_input": False, **common}
    pixels = {"type": "SegDataPreProcessor", "mean": [120.0, 110.0, 100.0], "std": [50.0, 51.0, 52.0]}
    model = {"type": "EncoderDecoder", "data_preprocessor": {**pixels, "bgr_to_rgb": True}, "pretrained": None}
    test = {"mode": "slide", "crop_size": (769, 769), "stride": (513, 513)}
    return {**model, "backbone": backbone, "decode_head": decode, "auxiliary_head": auxiliary, "test_cfg": test}


@pytest.mark.proves("mmseg", "FCN, DeepLabV3, PSPNet", "in", "logits of MMSegmentation's own networks")
@pytest.mark.parametrize(("head", "corners"), [("fcn", False), ("deeplabv3", True), ("pspnet", False)])
def test_mmsegmentations_own_networks(head, corners, tmp_path):
    pytest.importorskip("mmseg.models")
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    theirs = randomised(MODELS.build(mm_config(head, corners)))
    meta = {"cfg": f"model = {mm_config(head, corners)!r}", "dataset_meta": {"classes": CLASSES}}
    torch.save({"meta": meta, "state_dict": theirs.state_dict()}, tmp_path / "theirs.pth")
    ours, config, notes = ours_of(tmp_path / "theirs.pth", testing=False)
    assert config.MODEL.PIXEL_MEAN == [120.0, 110.0, 100.0] and config.MODEL.STEM == "deep"
    assert any("TEST.WINDOW 769 TEST.WINDOW_STRIDE 513" in note for note in notes)
    assert config.MODEL.OUTPUT_STRIDE == 16, "in a training it stays the config's"
    ours, config, _ = ours_of(tmp_path / "theirs.pth")
    with torch.no_grad():
        expected = theirs(IMAGES, mode="tensor")
        expected = nn.functional.interpolate(expected, IMAGES.shape[-2:], mode="bilinear", align_corners=corners)
        torch.testing.assert_close(ours(IMAGES)["out"], expected, rtol=1e-4, atol=1e-4)

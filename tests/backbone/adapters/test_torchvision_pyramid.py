"""Our networks in torchvision's detectors, against torchvision's own detectors with the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from adapter_checks import check_training_step
from randomize import randomize
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet

import backbone
from backbone import ArchitectureError, Preprocessing, adapters

SIZES = {"min_size": 64, "max_size": 96}
# Few regions: torchvision's thousands, of which each is computed alike, take seconds.
BOX = {"box_score_thresh": 0.0, "box_detections_per_img": 20, "box_batch_size_per_image": 32}
BOX |= {"rpn_post_nms_top_n_train": 60, "rpn_post_nms_top_n_test": 60}
DENSE = {"score_thresh": 0.0, "detections_per_img": 20}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@pytest.fixture
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 64, 90, generator=generator), torch.rand(3, 80, 64, generator=generator)]


@pytest.fixture
def targets(images) -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[5.0, 8.0, 40.0, 60.0], [20.0, 10.0, 60.0, 50.0]])
    masks = [torch.zeros(2, *image.shape[1:], dtype=torch.uint8) for image in images]
    for mask in masks:
        mask[:, 10:50, 20:40] = 1
    return [{"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": mask} for mask in masks]


def same_detections(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other)
        assert len(other["boxes"]) > 0
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-3, rtol=1e-5)
        for name in set(one) - {"labels", "boxes"}:
            torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "top"),
    [
        (FasterRCNN, "pool"),
        (MaskRCNN, "pool"),
        (RetinaNet, "p6p7"),
        (RetinaNet, "p6p7_from_stage"),
        (FCOS, "p6p7"),
    ],
)
def test_detector_trains_and_detects(kind, top, images, targets):
    torch.manual_seed(0)
    pyramid = adapters.torchvision_fpn("resnet18", top=top, norm="frozen_bn", freeze_at=2, out_channels=32)
    few = BOX if top == "pool" else {}
    detector = kind(pyramid, num_classes=5, **SIZES, **few, **adapters.image_statistics(pyramid))
    check_training_step(detector, lambda: sum(detector(images, targets).values()))
    with torch.no_grad():
        detections = detector.eval()(images)
    assert len(detections) == 2
    assert all({"boxes", "labels", "scores"} <= set(found) for found in detections)


@pytest.mark.parametrize(
    ("build", "kind", "top", "threshold"),
    [
        (detection.fasterrcnn_resnet50_fpn, FasterRCNN, "pool", BOX),
        (detection.maskrcnn_resnet50_fpn, MaskRCNN, "pool", BOX),
        (detection.retinanet_resnet50_fpn, RetinaNet, "p6p7", DENSE),
        (detection.fcos_resnet50_fpn, FCOS, "p6p7", DENSE),
    ],
)
def test_equals_torchvisions_own_detector(build, kind, top, threshold, images, targets):
    theirs = randomize(build(weights=None, weights_backbone=None, num_classes=5, **SIZES, **threshold))
    pyramid = adapters.torchvision_fpn("resnet50", top=top)
    ours = kind(pyramid, num_classes=5, **SIZES, **threshold)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        same_detections(ours.eval()(images), theirs.eval()(images))
    losses = []
    for detector in (ours.train(), theirs.train()):
        torch.manual_seed(1)  # the RPN and the heads draw their samples
        losses.append(detector(images, targets))
        sum(losses[-1].values()).backward()
    assert set(losses[0]) == set(losses[1])
    for name, value in losses[1].items():
        torch.testing.assert_close(losses[0][name], value, atol=1e-4, rtol=1e-4)
    for name, parameter in theirs.named_parameters():
        grad = ours.get_parameter(name).grad
        assert (grad - parameter.grad).abs().max() <= 1e-3 * parameter.grad.abs().max(), name


def test_pyramid_equals_torchvisions_with_frozen_bn():
    theirs = randomize(detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)).eval()
    ours = adapters.torchvision_fpn("resnet18", norm="frozen_bn", freeze_at=2).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 65, 97)
    mine, their = ours(x), theirs(x)
    assert list(mine) == list(their)
    for name, level in their.items():
        torch.testing.assert_close(mine[name], level, atol=1e-4, rtol=1e-4)
    trained = [{name for name, p in net.named_parameters() if p.requires_grad} for net in (ours, theirs)]
    assert trained[0] == trained[1]


def test_p6_reads_the_stage_where_asked():
    v2 = detection.retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)
    pyramid = adapters.torchvision_fpn("resnet50", top="p6p7_from_stage")
    RetinaNet(pyramid, num_classes=91)
    assert {name: value.shape for name, value in pyramid.state_dict().items()} == {
        name: value.shape for name, value in v2.backbone.state_dict().items()
    }
    # res4 of resnet18 has as many channels as the pyramid: torchvision alone would take the pyramid's level.
    small = adapters.torchvision_fpn("resnet18", stages=("res3", "res4"), top="p6p7_from_stage").eval()
    x = torch.rand(1, 3, 64, 64)
    stage = small.body(x)["res4"]
    torch.testing.assert_close(small(x)["p6"], small.fpn.extra_blocks.p6(stage))


def test_levels_and_strides():
    x = torch.rand(1, 3, 128, 192)
    for pyramid, names, strides in (
        (adapters.torchvision_fpn("resnet18"), ["0", "1", "2", "3", "pool"], [4, 8, 16, 32, 64]),
        (adapters.torchvision_fpn("resnet18", top="p6p7"), ["0", "1", "2", "p6", "p7"], [8, 16, 32, 64, 128]),
        (adapters.torchvision_fpn("resnet18", stages=["res4"], top="none", out_channels=8), ["0"], [16]),
        (adapters.torchvision_fpn("vgg16"), ["0", "1", "2", "pool"], [4, 8, 16, 32]),
        (
            adapters.torchvision_fpn("preact_resnet18", output_stride=16),
            ["0", "1", "2", "3", "pool"],
            [4, 8, 16, 16, 32],
        ),
    ):
        levels = pyramid.eval()(x)
        assert list(levels) == list(pyramid.feature_info) == names
        assert [info.stride for info in pyramid.feature_info.values()] == strides
        for name, level in levels.items():
            info = pyramid.feature_info[name]
            assert level.shape == (1, pyramid.out_channels, -(-128 // info.stride), -(-192 // info.stride))
            assert info.channels == pyramid.out_channels


def test_only_needed_stages_run_and_the_network_is_not_copied():
    network = backbone.create("resnet18", out_features=("stem", "res2", "res3", "res4", "res5"), num_classes=3)
    pyramid = adapters.torchvision_fpn(network, stages=("res3", "res4"))
    assert pyramid.body is network
    assert network.out_features == ("res3", "res4")
    assert not hasattr(adapters.torchvision_fpn("resnet18", stages=("res3", "res4")).body, "layer4")


@pytest.fixture
def weights_of_both_orders(tmp_path):
    """The same network's weights, once for RGB images 0..1, once for BGR images 0..255, and as another reads them."""
    network = randomize(backbone.create("resnet18"))
    rgb = Preprocessing("RGB", 1, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    network.preprocessing = rgb
    backbone.save_weights(network, tmp_path / "rgb.pth")
    with torch.no_grad():
        network.conv1.weight.copy_(network.conv1.weight.flip(1))
    network.preprocessing = rgb.converted(channel_order="BGR", value_range=255)
    backbone.save_weights(network, tmp_path / "bgr.pth")
    return tmp_path / "rgb.pth", tmp_path / "bgr.pth", {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}


def test_weights_for_bgr_images_see_them(weights_of_both_orders, images):
    rgb, bgr, statistics = weights_of_both_orders
    torch.manual_seed(0)
    network = backbone.create("resnet18", weights=rgb)
    pyramid = adapters.torchvision_fpn(network, out_channels=32)
    assert {k: pytest.approx(v) for k, v in adapters.image_statistics(pyramid).items()} == statistics
    detector = FasterRCNN(pyramid, num_classes=5, **SIZES, **BOX, **adapters.image_statistics(pyramid)).eval()
    other = copy.deepcopy(detector)
    adapters.load_weights_into(other, bgr)
    assert not torch.equal(other.backbone.body.conv1.weight, network.conv1.weight)
    with torch.no_grad():
        same_detections(other(images), detector(images))


def test_weights_loaded_late_set_the_detector(weights_of_both_orders):
    pyramid = adapters.torchvision_fpn("resnet18")
    assert adapters.image_statistics(pyramid) == {}
    detector = RetinaNet(pyramid, num_classes=5)
    assert {name: getattr(detector.transform, name) for name in IMAGENET} == IMAGENET
    report = adapters.load_weights_into(detector, weights_of_both_orders[1])
    assert report.fits
    for name, values in weights_of_both_orders[2].items():
        assert getattr(detector.transform, name) == pytest.approx(values)


def test_folded_network_detects_the_same(images):
    torch.manual_seed(0)
    pyramid = adapters.torchvision_fpn(randomize(backbone.create("resnet18", norm="frozen_bn")), out_channels=32)
    detector = FasterRCNN(pyramid, num_classes=5, **SIZES, **BOX).eval()
    with torch.no_grad():
        before = detector(images)
        detector.backbone.body = backbone.fold(detector.backbone.body)
        same_detections(detector(images), before)
    assert adapters.network_of(detector) is detector.backbone.body.network


@pytest.mark.parametrize(
    ("network", "keywords", "words"),
    [
        ("resnet18", {"top": "p6"}, "did you mean 'p6p7'"),
        ("resnet19", {}, "did you mean"),
        ("resnet18", {"stages": ("res3", "res7")}, "res7"),
        ("resnet18", {"stages": ()}, "must list some of"),
        ("resnet18", {"out_features": ("res3",)}, "name the stages"),
        ("resnet18", {"freez_at": 2}, "did you mean 'freeze_at'"),
        (torch.nn.Identity(), {}, "not Identity"),
        (backbone.create("cifar_resnet20"), {"freeze_at": 2}, "is built already; give freeze_at to backbone.create"),
        (backbone.create("cifar_resnet20", out_features=("stem",)), {}, "must list some of"),
        (backbone.create("cifar_resnet20"), {"stages": ("res4", "logits")}, "logits"),
    ],
)
def test_mistakes_are_named(network, keywords, words):
    with pytest.raises(ArchitectureError, match=words) as caught:
        adapters.torchvision_fpn(network, **keywords)
    assert "\n" not in str(caught.value)

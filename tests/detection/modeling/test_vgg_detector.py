"""The paper's baseline: Faster R-CNN on VGG-16."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from peers import config
from small_detectors import KINDS, SMALL, sample_of
from torch import nn
from torchvision.ops import roi_pool

import backbone
from backbone import ConfigError, WeightsError
from detection.modeling.build import build
from detection.modeling.fast_rcnn import VGGROIHeads
from detection.weights.load import load_initial, open_starting_weights

SETTINGS = config("voc_paper_vgg16_07.yaml", **{**SMALL, **KINDS["vgg"][1]})


@pytest.fixture(scope="module")
def vgg() -> nn.Module:
    torch.manual_seed(0)
    return build(SETTINGS)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> tuple[str, dict[str, torch.Tensor]]:
    """Weights of a VGG-16 classifier, in torchvision's layout."""
    torch.manual_seed(1)
    network = backbone.create("vgg16", num_classes=2)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(network.state_dict(), path)
    return str(path), network.state_dict()


def test_layers_are_vggs(vgg):
    """Sec. 4.3: 13 shared convolutions, stride 16; RoI pooling 7 x 7, fc6 and fc7 with dropout, two sibling layers."""
    shared = [module for module in vgg.backbone.modules() if isinstance(module, nn.Conv2d)]
    assert len(shared) == 13
    assert vgg.backbone.output_shape()["conv5"].stride == 16
    head = vgg.roi_heads
    assert type(head) is VGGROIHeads
    (pooler,) = head.box_pooler.level_poolers
    assert (type(pooler).__name__, head.box_pooler.output_size, pooler.spatial_scale) == ("RoIPool", (7, 7), 1 / 16)
    layers = list(head.box_head.classifier)
    assert [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)] == [
        (512 * 49, 4096),
        (4096, 4096),
    ]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert head.box_predictor.cls_score.in_features == 4096
    assert head.box_predictor.bbox_pred.out_features == 3 * 4


def test_conv1_and_conv2_are_frozen(vgg):
    convolutions = [module for module in vgg.backbone.modules() if isinstance(module, nn.Conv2d)]
    assert [layer.weight.requires_grad for layer in convolutions] == [False] * 4 + [True] * 9


def test_a_classifiers_weights_reach_backbone_and_head(vgg, classifier):
    path, tensors = classifier
    said = load_initial(vgg, open_starting_weights(path), SETTINGS)
    # 13 convolutions, fc6 and fc7, a weight and a bias each; not the classifier's last layer.
    assert "30 tensors" in said
    assert torch.equal(vgg.backbone.state_dict()["features.28.weight"], tensors["features.28.weight"])
    for name in ("classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias"):
        assert torch.equal(vgg.roi_heads.box_head.state_dict()[name], tensors[name]), name


def test_regions_go_through_fc6_and_fc7(vgg):
    """Against torchvision's RoI pooling and the two layers written out."""
    vgg.eval()
    features = {"conv5": torch.rand(1, 512, 6, 9, generator=torch.Generator().manual_seed(0))}
    boxes = torch.tensor([[0.0, 0.0, 143.0, 95.0], [20.0, 30.0, 80.0, 90.0]])
    head = vgg.roi_heads
    with torch.no_grad():
        found = head.box_head(head.box_pooler([features["conv5"]], [Boxes(boxes)]))
        pooled = roi_pool(features["conv5"], [boxes], 7, 1 / 16).flatten(1)
        fc6, fc7 = head.box_head.classifier[0], head.box_head.classifier[3]
        expected = (fc7.weight @ (fc6.weight @ pooled.T + fc6.bias[:, None]).relu() + fc7.bias[:, None]).relu().T
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_training_step_moves_head_and_conv3_up(vgg):
    instances = Instances((96, 144), gt_boxes=Boxes(torch.tensor([[8.0, 8.0, 90.0, 80.0]])))
    instances.gt_classes = torch.tensor([1])
    with EventStorage():
        losses = vgg.train()([{**sample_of(96, 144), "instances": instances}])
    sum(losses.values()).backward()
    gradients = {name: p.grad is not None for name, p in vgg.named_parameters()}
    assert {name for name, has in gradients.items() if not has} == {
        f"backbone.features.{layer}.{part}" for layer in (0, 2, 5, 7) for part in ("weight", "bias")
    }
    vgg.zero_grad(set_to_none=True)


def test_weights_without_fc6_and_fc7_are_refused(vgg, tmp_path, classifier):
    tensors = {name: value for name, value in classifier[1].items() if name.startswith("features.")}
    torch.save(tensors, tmp_path / "features.pth")
    with pytest.raises(WeightsError, match="classifier.0.weight"):
        load_initial(vgg, open_starting_weights(str(tmp_path / "features.pth")), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 14}, "fc6 of VGG-16 takes 7"),
        ({"MODEL__ROI_HEADS__IN_FEATURES": ["conv4", "conv5"]}, "pools from one map"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        build(config("voc_paper_vgg16_07.yaml", **changes))


def test_roi_align_by_key():
    with torch.device("meta"):
        head = build(
            config("voc_paper_vgg16_07.yaml", MODEL__ROI_BOX_HEAD__POOLER_TYPE="ROIAlignV2", MODEL__DEVICE="meta")
        )
    assert isinstance(head.roi_heads.box_pooler.level_poolers[0], ROIAlign)

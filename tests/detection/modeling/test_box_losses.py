"""Losses of the class scores of regions, against torch's and torchvision's functions and plain loops."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from peers import config as config_of
from small_detectors import SMALL, detector, level_out, sample_of, settings_of
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from backbone import ConfigError
from detection.config.detectron2_config import to_detectron2
from detection.config.keys import idle_keys
from detection.engine.task import weights_of_classes
from detection.export.graph import DetectorGraph
from detection.inference.fast import fast_copy
from detection.modeling.box_losses import LossOutputLayers, output_layers, set_class_weights
from detection.modeling.build import build
from detection.modeling.testing import Network
from detection.weights.mmdetection_model import config_text
from detection.weights.torchvision_config import _of_regions

CLASSES = 3
WEIGHTS = (0.5, 4.0, 1.0)
KINDS = ("c4", "fpn", "cascade")


def settings(kind: str, **changes: object):
    if kind == "cascade":
        small = {**SMALL, "MODEL__BACKBONE__NAME": "resnet18_fpn"}
        return config_of("coco_cascade_rcnn_r50_fpn.yaml", **{**small, **changes})
    return settings_of(kind, **changes)


def regions(seed: int = 0, number: int = 40) -> tuple[Tensor, Tensor, list[Instances]]:
    """Return logits (R, K + 1), deltas (R, 4 * K) and two images' labelled regions, most of them background."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(number, CLASSES + 1, generator=generator) * 3
    corners = torch.rand(number, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 10], dim=1)
    labels = torch.randint(0, 2 * CLASSES, (number,), generator=generator).clamp(max=CLASSES)
    images = []
    for part in (slice(0, 15), slice(15, number)):
        image = Instances((80, 80), proposal_boxes=Boxes(boxes[part]), gt_boxes=Boxes(boxes[part] + 1))
        image.gt_classes = labels[part]
        images.append(image)
    return logits.requires_grad_(), torch.randn(number, 4 * CLASSES, generator=generator), images


def expected(kind: str, logits: Tensor, labels: Tensor, weights: tuple[float, ...]) -> Tensor:
    number = len(labels)
    if kind == "softmax":
        return F.cross_entropy(logits, labels, weight=torch.tensor([*weights, 1.0]))
    target = torch.zeros(number, CLASSES)
    for row, label in enumerate(labels.tolist()):
        if label < CLASSES:
            target[row, label] = 1
    if kind == "focal":
        losses = sigmoid_focal_loss(logits[:, :CLASSES], target, alpha=0.3, gamma=1.5, reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(logits[:, :CLASSES], target, reduction="none")
    return (losses * torch.tensor(weights)).sum() / number


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), WEIGHTS])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "focal"])
def test_the_loss_and_its_gradient_are_torchs(kind, weights):
    keys = {"CLASS_LOSS": kind, "FOCAL_GAMMA": 1.5, "FOCAL_ALPHA": 0.3}
    config = settings("fpn", **{f"MODEL__ROI_BOX_HEAD__{key}": value for key, value in keys.items()})
    torch.manual_seed(0)
    model = build(config)
    set_class_weights(model, weights, config)
    layers = model.roi_heads.box_predictor
    logits, deltas, images = regions()
    with EventStorage():
        found = layers.losses((logits, deltas), images)
    labels = torch.cat([image.gt_classes for image in images])
    truth = expected(kind, logits, labels, weights)
    torch.testing.assert_close(found["loss_cls"], truth)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found["loss_cls"], truth)]
    torch.testing.assert_close(*gradients)
    if kind != "softmax":
        assert not gradients[0][:, -1].any()
        assert layers.cls_score.bias[0].sigmoid().item() == pytest.approx(0.01)
    # The loss of the boxes is detectron2's, and an image without regions has none.
    torch.manual_seed(0)
    plain = build(settings("fpn")).roi_heads.box_predictor
    assert type(plain) is not LossOutputLayers
    with EventStorage():
        torch.testing.assert_close(found["loss_box_reg"], plain.losses((logits, deltas), images)["loss_box_reg"])
        nothing = layers.losses((logits[:0], deltas[:0]), [images[0][:0]])
    assert nothing["loss_cls"] == 0
    assert "class_weights" not in {name.rpartition(".")[2] for name in model.state_dict()}


def test_focal_is_the_papers_formula():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5, 9.0], [0.0, 0.3, -2.0, -9.0]]), [1, CLASSES]
    layers = LossOutputLayers.__new__(LossOutputLayers)
    torch.nn.Module.__init__(layers)
    layers.class_loss = "focal"
    total = 0.0
    for row, label in enumerate(labels):
        for place in range(CLASSES):
            p = 1 / (1 + math.exp(-logits[row, place].item()))
            right, alpha = (p, 0.25) if place == label else (1 - p, 0.75)
            total -= alpha * (1 - right) ** 2 * math.log(right)
    assert layers.loss_of(logits, torch.tensor(labels)).item() == pytest.approx(total / 2, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_detectors_train_and_test_with_it(kind):
    """Each class has the probability of its own logit: in the detector, its copy, its methods and its export."""
    config = settings(kind, MODEL__ROI_BOX_HEAD__CLASS_LOSS="focal", MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.05)
    sample = sample_of(64, 96)
    torch.manual_seed(0)
    model = build(config).eval() if kind == "cascade" else level_out(detector(config), sample)
    layers = list(output_layers(model))
    assert len(layers) == (3 if kind == "cascade" else 1) and all(type(layer) is LossOutputLayers for layer in layers)
    logits, deltas, images = regions()
    found = layers[0].predict_probs((logits, deltas), images)
    assert torch.equal(torch.cat(found), logits.sigmoid()) and [len(part) for part in found] == [15, 25]
    with torch.no_grad():
        detected = model([sample])[0]["instances"]
        copied = fast_copy(model)([sample])[0]["instances"]
        graph = DetectorGraph(model)
        boxes, scores = graph(sample["image"].float())[:2]
    torch.testing.assert_close(copied.scores, detected.scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores, detected.scores, atol=1e-4, rtol=1e-4)
    if kind == "cascade":
        return
    assert len(detected) > 1 and len(boxes) == len(detected)
    network = Network(model)
    with torch.no_grad():
        maps = network.maps(sample["image"])
        proposals = network.proposals(maps)
        found = network.predict(network.pool(maps, proposals), proposals)
    limits = (layers[0].test_score_thresh, layers[0].test_nms_thresh, layers[0].test_topk_per_image)
    by_hand, _ = fast_rcnn_inference([found.boxes.flatten(1)], [found.scores], [maps.size], *limits)
    torch.testing.assert_close(by_hand[0].scores, detected.scores)


def test_weights_follow_from_the_numbers_of_objects():
    labels, crowd = np.array([0, 0, 0, 0, 1, 2, 2, 2]), np.array([False] * 7 + [True])
    sets = SimpleNamespace(train=SimpleNamespace(labels=labels, crowd=crowd), classes=["a", "b", "c"])
    config = settings("fpn", SOLVER__CLASS_BALANCE=1.0, SOLVER__CLASS_WEIGHTS=(1.0, 1.0, 3.0))
    assert weights_of_classes(sets, config) == pytest.approx([2 / 4, 2 / 1, 3 * 2 / 2])
    assert weights_of_classes(sets, settings("fpn")) == [1.0] * 3


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("coco_faster_rcnn_r50_fpn.yaml", {"SOLVER__CLASS_WEIGHTS": (1.0, -1.0)}, "holds numbers, 0 or more"),
        ("coco_faster_rcnn_r50_fpn.yaml", {"SOLVER__CLASS_BALANCE": -0.5}, "CLASS_BALANCE must be 0 or more"),
        ("coco_faster_rcnn_r50_fpn.yaml", {"MODEL__ROI_BOX_HEAD__FOCAL_ALPHA": 2.0}, "FOCAL_ALPHA must be from 0 to 1"),
        (
            "coco_faster_rcnn_r50_fpn.yaml",
            {"MODEL__ROI_BOX_HEAD__CLASS_LOSS": "focl"},
            "softmax, sigmoid, focal",
        ),
        ("coco_retinanet_r50_fpn.yaml", {"SOLVER__CLASS_BALANCE": 0.5}, "SOLVER.CLASS_BALANCE has no effect here"),
        ("coco_retinanet_r50_fpn.yaml", {"MODEL__ROI_BOX_HEAD__CLASS_LOSS": "focal"}, "has no effect here; RetinaNet"),
    ],
)
def test_what_cannot_be_is_refused(name, changes, said):
    with pytest.raises(ConfigError, match=said):
        config_of(name, **changes)


def test_no_other_project_gets_a_head_that_it_would_read_as_softmax():
    config = settings("fpn", MODEL__ROI_BOX_HEAD__CLASS_LOSS="sigmoid", MODEL__ROI_BOX_HEAD__FOCAL_GAMMA=1.0)
    words = "a box head whose classes do not exclude each other"
    for write in (to_detectron2, config_text):
        with pytest.raises(ConfigError, match=words):
            write(config, "its config")
    assert (False, words) in _of_regions(config)
    assert idle_keys(config, {"MODEL.ROI_BOX_HEAD.FOCAL_GAMMA"}) == [
        "MODEL.ROI_BOX_HEAD.FOCAL_GAMMA has no effect with MODEL.ROI_BOX_HEAD.CLASS_LOSS sigmoid"
    ]

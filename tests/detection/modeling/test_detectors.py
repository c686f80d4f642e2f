"""Whole detectors of our configs: a training step, inference, and images with nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from peers import config
from randomize import randomize
from torch import Tensor, nn

from backbone.networks.norm import FrozenBatchNorm2d
from detection.inference.run import detect, to_coco
from detection.modeling.backbone import network_of
from detection.modeling.build import build
from detection.modeling.c4 import C4ROIHeads

SMALL = {
    "MODEL__RPN__PRE_NMS_TOPK_TRAIN": 50,
    "MODEL__RPN__PRE_NMS_TOPK_TEST": 50,
    "MODEL__RPN__POST_NMS_TOPK_TRAIN": 20,
    "MODEL__RPN__POST_NMS_TOPK_TEST": 10,
    # Every anchor counts, so that every level of a pyramid gets a gradient.
    "MODEL__RPN__BATCH_SIZE_PER_IMAGE": 4096,
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 6,
    "MODEL__ROI_HEADS__NUM_CLASSES": 3,
    # A random classifier is sure of nothing.
    "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.01,
    "MODEL__FPN__OUT_CHANNELS": 16,
    "MODEL__ROI_BOX_HEAD__FC_DIM": 16,
    "MODEL__ROI_MASK_HEAD__CONV_DIM": 8,
}
DETECTORS = {
    "c4": ("coco_faster_rcnn_r50.yaml", {}),
    "c4 with detectron2's head": ("coco_faster_rcnn_r50.yaml", {"MODEL__ROI_HEADS__NAME": "Res5ROIHeads"}),
    "fpn": ("coco_faster_rcnn_r50_fpn.yaml", {}),
    "mask": ("coco_mask_rcnn_r50_fpn.yaml", {}),
}
RPN_LOSSES = {"loss_rpn_cls", "loss_rpn_loc"}
BOX_LOSSES = {"loss_cls", "loss_box_reg"}


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request) -> tuple[str, nn.Module]:
    name, changes = DETECTORS[request.param]
    torch.manual_seed(0)
    model = build(config(name, **SMALL, **changes))
    randomize(network_of(model))
    if hasattr(model.roi_heads, "res5"):
        randomize(model.roi_heads.res5)
    return request.param, model


def image(height: int, width: int, seed: int) -> Tensor:
    return torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def sample(height: int, width: int, objects: int, *, masks: bool) -> dict:
    """A training sample with squares of 32 pixels as objects."""
    corners = torch.arange(objects)[:, None] * torch.tensor([[20.0, 10.0]]) + 8
    target = Instances((height, width))
    target.gt_boxes = Boxes(torch.cat([corners, corners + 32], dim=1))
    target.gt_classes = torch.arange(objects) % 3
    if masks:
        outlines = [[np.array([x, y, x + 32, y, x + 32, y + 32, x, y + 32])] for x, y in corners.tolist()]
        target.gt_masks = PolygonMasks(outlines)
    return {"image": image(height, width, objects), "instances": target, "height": height, "width": width}


def training_step(kind: str, model: nn.Module, objects: tuple[int, int]) -> dict[str, Tensor]:
    model.train().zero_grad()
    batch = [sample(*size, number, masks=kind == "mask") for size, number in zip([(96, 128), (80, 70)], objects)]
    torch.manual_seed(0)
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    assert losses.keys() == RPN_LOSSES | BOX_LOSSES | ({"loss_mask"} if kind == "mask" else set())
    assert all(torch.isfinite(loss) for loss in losses.values())
    return losses


def test_heads_are_those_of_the_config(detector):
    kind, model = detector
    heads = {"c4": C4ROIHeads, "c4 with detectron2's head": Res5ROIHeads}
    assert isinstance(model.roi_heads, heads.get(kind, type(model.roi_heads)))
    assert isinstance(network_of(model).bn1, FrozenBatchNorm2d)


def test_training_step_with_an_image_without_objects(detector):
    kind, model = detector
    losses = training_step(kind, model, (3, 0))
    assert all(loss > 0 for loss in losses.values())
    frozen = {name: value.clone() for name, value in model.state_dict().items() if name not in trained(model)}
    before = {name: parameter.detach().clone() for name, parameter in trained(model).items()}
    for name, parameter in trained(model).items():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    build_optimizer(config(SOLVER__BASE_LR=1e-4), model).step()
    assert not [name for name, parameter in trained(model).items() if torch.equal(parameter, before[name])]
    assert not [name for name, value in frozen.items() if not torch.equal(model.state_dict()[name], value)]
    # freeze_at is 2: stem and res2.
    assert any(name.endswith("layer1.2.conv3.weight") for name in frozen)
    assert any(name.endswith("layer2.0.conv1.weight") for name in before)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_training_step_without_any_object(detector):
    kind, model = detector
    losses = training_step(kind, model, (0, 0))
    assert losses["loss_rpn_loc"] == losses["loss_box_reg"] == 0
    assert losses["loss_rpn_cls"] > 0
    assert losses["loss_cls"] > 0
    assert losses.get("loss_mask", 0) == 0
    assert all(
        torch.isfinite(parameter.grad).all() for parameter in trained(model).values() if parameter.grad is not None
    )


def samples() -> list[dict]:
    """Two test images of different sizes, each twice as large in its file."""
    sizes = [(96, 128), (80, 70)]
    return [{"image": image(*size, 7), "height": 2 * size[0], "width": 2 * size[1]} for size in sizes]


def test_inference(detector):
    kind, model = detector
    found = detect(model.eval(), samples())
    for instances, given in zip(found, samples()):
        height, width = given["height"], given["width"]
        assert instances.image_size == (height, width)
        assert len(instances) > 0
        boxes = instances.pred_boxes.tensor
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.max() > max(height, width) / 2, "boxes are in pixels of the resized image"
        assert (instances.scores.diff() <= 0).all()
        assert ((instances.scores > 0.01) & (instances.scores <= 1)).all()
        assert set(instances.pred_classes.tolist()) <= {0, 1, 2}
        assert instances.has("pred_masks") == (kind == "mask")
        if kind == "mask":
            assert instances.pred_masks.shape == (len(instances), height, width)
            assert instances.pred_masks.dtype == torch.bool
        records = to_coco(instances, 5, [10, 20, 30])
        assert {record["category_id"] for record in records} <= {10, 20, 30}
        assert [record["image_id"] for record in records] == [5] * len(instances)


@pytest.mark.parametrize("where", ["classifier", "proposals"])
def test_nothing_is_found(detector, monkeypatch, where):
    """Either no region has a class that is sure enough, or there are no regions to begin with."""
    kind, model = detector
    if where == "classifier":
        monkeypatch.setattr(model.roi_heads.box_predictor, "test_score_thresh", 1.0)
    else:
        monkeypatch.setattr(model.proposal_generator, "min_box_size", 1e6)
    for instances, given in zip(detect(model.eval(), samples()), samples()):
        assert len(instances) == 0
        assert instances.pred_boxes.tensor.shape == (0, 4)
        assert to_coco(instances, 1, [1, 2, 3]) == []
        if kind == "mask":
            assert instances.pred_masks.shape == (0, given["height"], given["width"])


def test_batch_and_single_images_agree_where_nothing_is_padded(detector):
    _, model = detector
    one = samples()[0] | {"image": image(96, 128, 3)}
    other = samples()[0] | {"image": image(96, 128, 4)}
    together = detect(model.eval(), [one, other])
    for batched, single in zip(together, [detect(model, [one])[0], detect(model, [other])[0]]):
        assert len(batched) == len(single)
        assert torch.allclose(batched.scores, single.scores, atol=1e-4)

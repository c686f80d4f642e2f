"""A training step computes what detectron2's own modules compute, to the bit, and waits for the device less often."""

from __future__ import annotations

import copy
from types import MethodType

import numpy as np
import pytest
import torch
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from peers import config
from small_detectors import detector
from torch import Tensor, nn
from waits_counted import Waits

from detection.modeling import build, sampling, waits
from detection.modeling.c4 import C4ROIHeads

SMALL = {
    "MODEL__RPN__PRE_NMS_TOPK_TRAIN": 60,
    "MODEL__RPN__POST_NMS_TOPK_TRAIN": 30,
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 8,
    "MODEL__ROI_HEADS__NUM_CLASSES": 3,
    "MODEL__FPN__OUT_CHANNELS": 16,
    "MODEL__ROI_BOX_HEAD__FC_DIM": 16,
    "MODEL__ROI_MASK_HEAD__CONV_DIM": 8,
}
PYRAMID = {"MODEL__BACKBONE__NAME": "resnet18_fpn"}
C4 = {"MODEL__BACKBONE__NAME": "resnet18", "MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 6}
AGNOSTIC = {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}
# The config, and the waits of a step of two images: labels, proposals, regions, each pooling of a pyramid; with masks
# also the objects of the regions, and the boxes in which polygons are drawn. NMS, once an image, is counted for itself.
KINDS = {
    "fpn": ("coco_faster_rcnn_r50_fpn.yaml", {**PYRAMID, **AGNOSTIC}, 4),
    "c4": ("coco_faster_rcnn_r50.yaml", {**C4, "MODEL__MASK_ON": True}, 5),
    "masks": ("coco_mask_rcnn_r50_fpn.yaml", PYRAMID, 7),
    "bit masks": ("coco_mask_rcnn_r50_fpn.yaml", PYRAMID, 5),
    "cascade": ("coco_cascade_rcnn_r50_fpn.yaml", PYRAMID, None),
    "giou": ("coco_faster_rcnn_r50_fpn.yaml", {**PYRAMID, "MODEL__RPN__BBOX_REG_LOSS_TYPE": "giou"}, None),
}


def sample(seed: int, objects: int, masks: str) -> dict:
    generator = torch.Generator().manual_seed(seed)
    height, width = 80, 96 - 16 * seed
    target = Instances((height, width))
    corners = torch.rand(objects, 2, generator=generator) * 40
    target.gt_boxes = Boxes(
        torch.cat([corners, corners + 20 + 20 * torch.rand(objects, 2, generator=generator)], dim=1)
    )
    target.gt_classes = torch.randint(3, (objects,), generator=generator)
    if masks == "polygons":
        corners = target.gt_boxes.tensor.double().tolist()
        target.gt_masks = PolygonMasks([[np.array([x, y, u, y, u, v, x, v])] for x, y, u, v in corners])
    elif masks:
        target.gt_masks = BitMasks(torch.rand(objects, height, width, generator=generator) > 0.5)
    pixels = torch.rand(1, 3, 6, 8, generator=generator) * 255
    image = nn.functional.interpolate(pixels, (height, width), mode="bilinear")[0].to(torch.uint8)
    return {"image": image, "instances": target, "height": height, "width": width}


def batch_of(kind: str, objects: tuple[int, int] = (4, 2)) -> list[dict]:
    masks = {"masks": "polygons", "c4": "polygons", "bit masks": "bits"}.get(kind, "")
    return [sample(seed, number, masks) for seed, number in enumerate(objects)]


def step(model: nn.Module, batch: list[dict], storage: EventStorage) -> tuple[dict[str, Tensor], list, Tensor]:
    """Return losses, gradients and the state of the generator behind a step."""
    model.train().zero_grad(set_to_none=True)
    torch.manual_seed(3)
    with storage:
        losses = model(batch)
    sum(losses.values()).backward()
    return losses, [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None], torch.get_rng_state()


@pytest.fixture(scope="module")
def pair(request) -> tuple[str, nn.Module, nn.Module]:
    """Return a detector, and the same of detectron2's own modules."""
    name, keys, _ = KINDS[request.param]
    settings = config(name, **{**SMALL, **keys})
    make = build.build if request.param == "cascade" else detector
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "spare_waits", lambda model: None)
        # detector() builds with the same function.
        patch.setattr("small_detectors.build", build.build)
        stock = make(settings)
    own = copy.deepcopy(stock)
    waits.spare_waits(own)
    if isinstance(stock.roi_heads, C4ROIHeads):
        for method in ("forward", "label_and_sample_proposals"):
            setattr(stock.roi_heads, method, MethodType(getattr(Res5ROIHeads, method), stock.roi_heads))
    return request.param, own, stock


@pytest.mark.parametrize(
    ("pair", "objects"), [*((kind, (4, 2)) for kind in KINDS), ("c4", (3, 0)), ("masks", (3, 0))], indirect=["pair"]
)
def test_a_step_is_detectron2s_to_the_bit(pair, objects):
    kind, own, stock = pair
    counts, expected = waits.StepCounts(), EventStorage()
    losses, gradients, state = step(own, batch_of(kind, objects), counts)
    other_losses, other_gradients, other_state = step(stock, batch_of(kind, objects), expected)
    assert losses.keys() == other_losses.keys()
    assert all(torch.equal(losses[name], other_losses[name]) for name in losses), (losses, other_losses)
    assert torch.equal(state, other_state)
    for (name, gradient), (other_name, other) in zip(gradients, other_gradients, strict=True):
        assert name == other_name and torch.equal(gradient, other), name
    shown = {name: float(value) for name, value in counts.counts().items()}
    assert shown == {name: value for name, (value, _) in expected.latest().items()}
    assert shown["roi_head/num_fg_samples"] > 0


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_waits_of_a_step(pair, monkeypatch):
    kind, own, _ = pair
    batch = batch_of(kind)
    with Waits(monkeypatch) as counter:
        step(own, batch, waits.StepCounts())
    # The other waits of those without a number are detectron2's.
    assert counter.nms == 2 and counter.number == (KINDS[kind][2] or counter.number)


def test_indices_of_a_device_are_those_of_a_cpu():
    mask = torch.rand(1000, generator=torch.Generator().manual_seed(0)) > 0.7

    class Elsewhere:
        device = torch.device("cuda")
        byte = mask.byte

    assert torch.equal(sampling.indices(Elsewhere(), int(mask.sum())), mask.nonzero()[:, 0])


def test_a_sample_is_moved_whole():
    given = sample(0, 3, "bits")
    given["instances"].set("gt_names", ["a", "b", "c"])
    given["instances"].set("gt_polygons", sample(0, 3, "polygons")["instances"].gt_masks)
    moved = waits.on_device(given, "meta")
    assert moved["image"].device.type == "meta" == moved["instances"].gt_boxes.device.type
    assert moved["instances"].gt_masks.tensor.device.type == moved["instances"].gt_classes.device.type == "meta"
    assert moved["instances"].gt_names == ["a", "b", "c"] and len(moved["instances"].gt_polygons) == 3
    assert moved["instances"].image_size == given["instances"].image_size and moved["height"] == given["height"]


def test_a_box_that_is_not_finite_ends_the_step():
    name, keys, _ = KINDS["fpn"]
    model = detector(config(name, **{**SMALL, **keys}))
    torch.nn.init.constant_(model.proposal_generator.rpn_head.anchor_deltas.bias, float("nan"))
    with pytest.raises(FloatingPointError):
        step(model, batch_of("fpn"), waits.StepCounts())

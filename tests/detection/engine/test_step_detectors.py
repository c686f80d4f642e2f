"""A step's losses, gradients and proposals against detectron2's own meta-architectures with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, ProposalNetwork
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from backbone.engine.scale import scale_schedule
from detection import get_config
from detection.data.sets import DetectionSet
from detection.engine import datasets
from detection.engine.alternating.detector import StepRCNN
from detection.engine.alternating.propose import propose, proposer
from detection.engine.alternating.steps import STEPS, Step, config_of
from detection.inference.transform import TestMapper, TestTransform
from detection.modeling.build import build

SMALL = (
    "MODEL.DEVICE",
    "cpu",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    40,
    "DATALOADER.NUM_WORKERS",
    0,
    "INPUT.MIN_SIZE_TEST",
    64,
)
KINDS = {
    "fpn": ("mini_faster_rcnn_r18.yaml", ()),
    "c4": (
        "coco_paper_r101.yaml",
        ("MODEL.BACKBONE.NAME", "resnet18", "DATASETS.TRAIN", ("mini_train",), "INPUT.MIN_SIZE_TRAIN", (96,)),
    ),
}


def settings_of(kind: str, *more: object) -> CfgNode:
    name, own = KINDS[kind]
    return get_config(name, [*SMALL, *own, "MODEL.ROI_HEADS.NUM_CLASSES", 8, *more])


@pytest.fixture(scope="module")
def images() -> DetectionSet:
    return datasets.load_sets(settings_of("fpn"), training=True).train


def step_detector(settings: CfgNode, step: Step) -> StepRCNN:
    torch.manual_seed(0)
    return build(settings, StepRCNN).begin(step).train()


def batch_of(images: DetectionSet, settings: CfgNode) -> list[dict]:
    """Return two samples, with boxes around the objects and beside them as proposals."""
    samples = [datasets.training_mapper(images, settings)(index) for index in images.trainable()[:2]]
    for sample in samples:
        truth = sample["instances"].gt_boxes.tensor
        height, width = sample["instances"].image_size
        boxes = Boxes(torch.cat([truth + shift for shift in (-3.0, 0.0, 2.0, 9.0)]))
        boxes.clip((height, width))
        sample["proposals"] = Instances(
            (height, width), proposal_boxes=boxes, objectness_logits=torch.zeros(len(boxes))
        )
    return samples


def losses_of(model: nn.Module, batch: list[dict]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    with EventStorage(0):
        return model(batch)


@pytest.mark.parametrize(("name", "images"), [("voc_paper_r101_07.yaml", 1), ("coco_paper_r101.yaml", 8)])
def test_fast_rcnn_takes_twice_the_images_with_half_the_regions(name, images):
    """Ren et al.: 1 image for the RPN, 2 x 64 regions for Fast R-CNN; He et al. on COCO: 8 images, and 16."""
    steps = [config_of(step, get_config(name)) for step in STEPS]
    assert [own.SOLVER.IMS_PER_BATCH for own in steps] == [images, 2 * images] * 2
    assert {own.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE for own in steps[1::2]} == {64}
    for own in steps:
        scaled, notes = scale_schedule(own)
        assert (scaled.SOLVER.BASE_LR, notes) == (1e-3, [])


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_detectron2(kind, images):
    settings = settings_of(kind)
    batch = batch_of(images, settings)
    given = settings.clone()
    given.defrost()
    given.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    for step, peer in ((STEPS[0], GeneralizedRCNN(settings)), (STEPS[1], GeneralizedRCNN(given))):
        ours = step_detector(settings, step)
        peer.load_state_dict({name: ours.state_dict()[name] for name in peer.state_dict()})
        expected = losses_of(peer.train(), batch)
        found = losses_of(ours, batch)
        assert set(found) == {name for name in expected if ("rpn" in name) == (step.part == "rpn")}
        for name, loss in found.items():
            assert torch.equal(loss, expected[name]), name
            assert loss > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_gradients_and_statistics_of_the_trained_part_alone(kind, step, images):
    settings = settings_of(kind, "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0)
    model = step_detector(settings, step)
    before = {name: value.clone() for name, value in model.named_buffers()}
    sum(losses_of(model, batch_of(images, settings)).values()).backward()
    trained = {"rpn": "proposal_generator", "fast_rcnn": "roi_heads"}[step.part]
    expected = {trained} if step.shared_fixed else {trained, "backbone"}
    assert {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None} == expected
    moved = {name.split(".")[0] for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert moved <= expected
    assert ("backbone" in moved) == (not step.shared_fixed)


def test_proposals_are_those_of_detectron2(images, tmp_path):
    settings = settings_of("fpn")
    source = step_detector(settings, STEPS[0])
    torch.save({"model": source.state_dict()}, tmp_path / "rpn.pth")
    model = proposer(settings, str(tmp_path / "rpn.pth"))
    proposed = propose(model, images, settings, title="")

    many = settings.clone()
    many.defrost()
    many.MODEL.RPN.PRE_NMS_TOPK_TEST = settings.MODEL.RPN.PRE_NMS_TOPK_TRAIN
    many.MODEL.RPN.POST_NMS_TOPK_TEST = 40
    peer = ProposalNetwork(many).eval()
    peer.load_state_dict({name: source.state_dict()[name] for name in peer.state_dict()})
    mapper = TestMapper(images, TestTransform(settings))
    used = images.trainable()
    for index in used[:5]:
        with torch.no_grad():
            expected = peer([mapper(index)])[0]["proposals"].proposal_boxes.tensor.numpy()
        assert len(expected) == 40
        np.testing.assert_allclose(proposed.proposals.of(index), expected, atol=1e-3)
    counts = np.diff(proposed.proposals.starts)
    assert set(np.flatnonzero(counts)) == set(used)
    assert 0 <= proposed.recall <= 1

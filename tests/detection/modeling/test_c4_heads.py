"""The head of the paper's detector against detectron2's Res5ROIHeads."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import Res5ROIHeads, build_roi_heads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from peers import changed, config, copy_weights, name_in_block, relative_errors
from randomize import randomize
from torch import nn

import backbone
from backbone.networks.norm import FrozenBatchNorm2d
from detection.modeling.build import build
from detection.modeling.c4 import C4ROIHeads
from detection.weights.load import load_initial, open_starting_weights

RES4 = {"res4": ShapeSpec(channels=1024, stride=16)}
HEIGHT, WIDTH = 160, 240
BOX_HEAD = {"MODEL__ROI_HEADS__NUM_CLASSES": 5, "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 6}


def random_boxes(number: int, seed: int) -> Boxes:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 4, generator=generator) * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    low, high = torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])
    return Boxes(torch.cat([low, high + 1], dim=1))


def proposals(images: int = 2, number: int = 6) -> list[Instances]:
    found = []
    for seed in range(images):
        instances = Instances((HEIGHT, WIDTH))
        instances.proposal_boxes = random_boxes(number, seed)
        instances.objectness_logits = torch.zeros(number)
        found.append(instances)
    return found


def targets() -> list[Instances]:
    """Ground truth for two images; the second has none."""
    found = []
    for number in (3, 0):
        instances = Instances((HEIGHT, WIDTH))
        instances.gt_boxes = Boxes(random_boxes(6, 0).tensor[:number] + 2)
        instances.gt_classes = torch.tensor([4, 0, 2])[:number]
        found.append(instances)
    return found


def features(images: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {"res4": torch.rand(images, 1024, HEIGHT // 16, WIDTH // 16, generator=generator)}


def both_heads(**changes: object) -> tuple[nn.Module, nn.Module]:
    settings = config("coco_faster_rcnn_r50.yaml", **BOX_HEAD, **changes)
    ours = build_roi_heads(settings, RES4)
    theirs = randomize(build_roi_heads(changed(settings, MODEL__ROI_HEADS__NAME="Res5ROIHeads"), RES4), seed=3)
    assert type(ours) is C4ROIHeads
    assert type(theirs) is Res5ROIHeads
    copy_weights(ours, theirs, name_in_block)
    return ours, theirs


def losses(head: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # Which proposals are sampled for the losses is random.
    torch.manual_seed(0)
    with EventStorage():
        return head.train()(None, inputs, proposals(), targets())[1]


PLACEMENTS = [{"MODEL__RESNETS__STRIDE_IN_1X1": placement} for placement in (True, False)]


@pytest.mark.parametrize("pooler", ["ROIPool", "ROIAlignV2"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@torch.no_grad()
def test_box_features_and_detections_equal_detectron2(placement, pooler):
    changes = {"MODEL__ROI_BOX_HEAD__POOLER_TYPE": pooler, "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0}
    ours, theirs = (head.eval() for head in both_heads(**placement, **changes))
    boxes = [image.proposal_boxes for image in proposals()]
    found = {
        str(index): head._shared_roi_transform([features()["res4"]], boxes) for index, head in enumerate((ours, theirs))
    }
    assert found["0"].shape == (12, 2048, 7, 7)
    assert relative_errors({"boxes": found["0"]}, {"boxes": found["1"]})["boxes"] < 1e-5
    for one, other in zip(ours(None, features(), proposals())[0], theirs(None, features(), proposals())[0]):
        assert len(one) == len(other) > 0
        assert torch.equal(one.pred_classes, other.pred_classes)
        assert torch.allclose(one.pred_boxes.tensor, other.pred_boxes.tensor, rtol=1e-4, atol=1e-2)
        assert torch.allclose(one.scores, other.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_losses_and_gradients_equal_detectron2(placement):
    gradients = []
    values = []
    for head in both_heads(**placement):
        inputs = features()
        inputs["res4"].requires_grad_()
        values.append(losses(head, inputs))
        sum(values[-1].values()).backward()
        gradients.append({"inputs": inputs["res4"].grad, "conv": head.res5[0].conv1.weight.grad})
    assert values[0].keys() == {"loss_cls", "loss_box_reg"}
    assert all(value > 0 for value in values[0].values())
    assert max(relative_errors(*values).values()) < 1e-5
    # The losses' rounding, which detectron2's versions do in another order, is large beside gradients near zero.
    assert max(relative_errors(*gradients).values()) < 1e-3


def test_mask_branch_equals_detectron2():
    """On detectron2's C4 form of Mask R-CNN, whose mask head takes res5's features."""
    changes = {"MODEL__MASK_ON": True, "MODEL__ROI_MASK_HEAD__NUM_CONV": 0, "MODEL__ROI_MASK_HEAD__CONV_DIM": 8}
    ours, theirs = (head.eval() for head in both_heads(**changes))
    found = []
    for image in proposals():
        instances = Instances((HEIGHT, WIDTH), pred_boxes=image.proposal_boxes, pred_classes=torch.arange(6) % 5)
        found.append(instances)
    with torch.no_grad():
        masks, expected = (
            {
                str(index): image.pred_masks
                for index, image in enumerate(head.forward_with_given_boxes(features(), found))
            }
            for head in (ours, theirs)
        )
    assert masks["0"].shape == (6, 1, 14, 14)
    assert max(relative_errors(masks, expected).values()) < 1e-5


@pytest.mark.parametrize("name", ["resnet18", "resnet101"])
def test_stage_follows_the_backbone(name):
    settings = config("coco_faster_rcnn_r50.yaml", MODEL__BACKBONE__NAME=name)
    channels = 256 if name == "resnet18" else 1024
    head = build_roi_heads(settings, {"res4": ShapeSpec(channels=channels, stride=16)})
    assert head.box_predictor.cls_score.in_features == 2 * channels
    assert head.res5(torch.zeros(3, channels, 14, 14)).shape == (3, 2 * channels, 7, 7)
    assert any(isinstance(module, FrozenBatchNorm2d) for module in head.res5.modules())


def test_the_paper_pools_before_conv5():
    """Sec. 4.3: RoI pooling before conv5_1, then conv5 and the global pool on each region."""
    head = build_roi_heads(config("coco_faster_rcnn_r101.yaml"), RES4)
    (pooler,) = head.pooler.level_poolers
    assert type(pooler).__name__ == "RoIPool"
    assert tuple(head.pooler.output_size) == (14, 14)
    assert pooler.spatial_scale == 1 / 16
    # The strided convolution of conv5_1 is its first 1x1, as in the authors' networks.
    assert head.res5[0].conv1.stride == (2, 2)
    assert [len(head.res5), head.box_predictor.cls_score.out_features] == [3, 81]


@torch.no_grad()
def test_no_proposals_at_all():
    head = both_heads()[0].eval()
    found, _ = head(None, features(), proposals(number=0))
    assert [len(image) for image in found] == [0, 0]
    assert found[0].pred_boxes.tensor.shape == (0, 4)


@torch.no_grad()
def test_pretrained_conv5_goes_into_either_head(tmp_path):
    """A backbone's file fills detectron2's last stage as ours, so that both compute the same from the first step."""
    path = tmp_path / "resnet50.pth"
    network = randomize(backbone.create("resnet50", norm="frozen_bn", stride_in_1x1=True))
    backbone.save_weights(network, path)
    pooled = torch.rand(3, 1024, 14, 14, generator=torch.Generator().manual_seed(0))
    outputs = []
    for name in ("C4ROIHeads", "Res5ROIHeads"):
        settings = config("coco_faster_rcnn_r50.yaml", MODEL__ROI_HEADS__NAME=name, MODEL__RESNETS__STRIDE_IN_1X1=True)
        model = build(settings).eval()
        said = load_initial(model, open_starting_weights(str(path)), settings)
        assert f"{len(network.state_dict())} tensors" in said
        outputs.append(model.roi_heads.res5(pooled))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)

"""Global context in training: what it pools, what it trains, and where it is refused."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from peers import config
from small_detectors import detector, plain_regions, sample_of, settings_of
from torch import nn

from backbone import ConfigError
from detection.modeling.build import build
from detection.modeling.regions import with_context

KINDS = ("c4", "fpn")
CONTEXT = {"MODEL__ROI_BOX_HEAD__GLOBAL_CONTEXT": True}


def training_samples() -> list[dict]:
    """Two images of different sizes, so that the smaller is padded in the batch."""
    samples = []
    for seed, (height, width) in enumerate([(96, 144), (64, 96)]):
        instances = Instances((height, width), gt_boxes=Boxes(torch.tensor([[8.0, 8.0, 60.0, 50.0]])))
        instances.gt_classes = torch.tensor([seed])
        samples.append({**sample_of(height, width, seed), "instances": instances})
    return samples


def losses(model: nn.Module, samples: list[dict]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    with EventStorage():
        return model.train()(samples)


@pytest.mark.parametrize("kind", KINDS)
def test_sibling_layers_take_two_features(kind):
    plain, wide = (build(settings_of(kind, **changes)).roi_heads.box_predictor for changes in ({}, CONTEXT))
    assert wide.cls_score.in_features == 2 * plain.cls_score.in_features
    assert wide.bbox_pred.in_features == 2 * plain.bbox_pred.in_features


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_tensors_stay(kind):
    plain, wide = (build(settings_of(kind, **changes)) for changes in ({}, CONTEXT))
    assert list(plain.state_dict()) == list(wide.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_each_region_stands_beside_its_own_image(kind):
    """Of a batch, each image as it is: its context must not reach into the padding."""
    model = detector(settings_of(kind, **CONTEXT))
    samples = training_samples()
    with torch.no_grad():
        images = model.preprocess_image(samples)
        features = model.backbone(images.tensor)
        boxes = [sample["instances"].gt_boxes for sample in samples]
        sizes = [sample["instances"].image_size for sample in samples]
        regions = torch.zeros(2, model.roi_heads.box_predictor.cls_score.in_features // 2)
        found = with_context(model.roi_heads, features, regions, boxes, sizes)
        assert torch.equal(found[:, : regions.shape[1]], regions)
        for row, (height, width) in enumerate(sizes):
            own = {name: maps[row : row + 1] for name, maps in features.items()}
            expected = plain_regions(model, own, torch.tensor([[0.0, 0.0, width, height]]))[0]
            assert torch.allclose(found[row, regions.shape[1] :], expected, atol=1e-5)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("kind", KINDS)
def test_context_is_trained_end_to_end(kind):
    model = detector(settings_of(kind, **CONTEXT))
    head = model.roi_heads
    with torch.no_grad():
        # Only through the context can a loss of the classifier reach the layers below.
        half = head.box_predictor.cls_score.in_features // 2
        head.box_predictor.cls_score.weight[:, :half] = 0
        head.box_predictor.bbox_pred.weight.zero_()
    losses(model, training_samples())["loss_cls"].backward()
    layers = head.res5 if hasattr(head, "res5") else head.box_head
    moved = [p.grad for p in layers.parameters() if p.requires_grad]
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in moved)
    moved = [p.grad for p in model.backbone.parameters() if p.requires_grad and p.grad is not None]
    assert max(gradient.abs().max() for gradient in moved) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_context_changes_the_losses_only_through_its_weights(kind):
    """With weights of zero for the context, training is that of the plain detector."""
    plain, wide = detector(settings_of(kind)), detector(settings_of(kind, **CONTEXT))
    tensors = plain.state_dict()
    for name in ("cls_score.weight", "bbox_pred.weight"):
        weight = tensors[f"roi_heads.box_predictor.{name}"]
        tensors[f"roi_heads.box_predictor.{name}"] = torch.cat([weight, torch.zeros_like(weight)], dim=1)
    wide.load_state_dict(tensors)
    one, other = (losses(model, training_samples()) for model in (plain, wide))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=1e-4), name


def test_masks_train_beside_context():
    settings = settings_of("c4", **CONTEXT, MODEL__MASK_ON=True, MODEL__ROI_MASK_HEAD__NAME="MaskRCNNConvUpsampleHead")
    samples = training_samples()
    for sample in samples:
        from detectron2.structures import BitMasks

        masks = torch.zeros(1, *sample["instances"].image_size, dtype=torch.bool)
        masks[:, 8:50, 8:60] = True
        sample["instances"].gt_masks = BitMasks(masks)
    settings = settings.clone()
    settings.defrost()
    settings.INPUT.MASK_FORMAT = "bitmask"
    found = losses(detector(settings), samples)
    assert found["loss_mask"] > 0


def test_a_pyramid_gets_the_head_that_knows_context():
    assert config("coco_faster_rcnn_r50_fpn.yaml").MODEL.ROI_HEADS.NAME == "StandardROIHeads"
    assert config("coco_faster_rcnn_r50_fpn.yaml", **CONTEXT).MODEL.ROI_HEADS.NAME == "RegionROIHeads"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**CONTEXT, "MODEL__ROI_HEADS__NAME": "Res5ROIHeads"}, "GLOBAL_CONTEXT is for heads"),
        ({**CONTEXT, "MODEL__ROI_BOX_HEAD__TRAIN_ON_PRED_BOXES": True}, "TRAIN_ON_PRED_BOXES"),
        ({"TEST__MULTI_SCALE__ENABLED": True, "TEST__AUG__ENABLED": True}, "exclude each other"),
        ({"TEST__FLIP": True, "TEST__AUG__ENABLED": True}, "both mirror"),
        ({"TEST__FLIP": True, "MODEL__ROI_HEADS__NAME": "CascadeROIHeads"}, "not CascadeROIHeads"),
        ({"TEST__BOX_VOTING__IOU": 1.5}, "TEST.BOX_VOTING.IOU"),
        ({"TEST__SOFT_NMS__METHOD": "gauss"}, "gaussian"),
        ({"TEST__SOFT_NMS__SIGMA": 0.0}, "SIGMA"),
        ({"TEST__MULTI_SCALE__SIDES": (600,)}, "2 or more"),
        ({"TEST__ENSEMBLE": (3,)}, "checkpoint files"),
        ({"TEST__BOX_REFINEMENTS__ENABLED": True}, "TEST.BOX_REFINEMENT"),
        ({"PAPER__ROWS": (["9", "baseline", "coco val", 27.2],)}, "PAPER.ROWS holds"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        config("coco_faster_rcnn_r50_fpn.yaml", **changes)
    assert "\n" not in str(caught.value)

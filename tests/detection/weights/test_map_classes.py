"""Heads of a detector that was trained on other classes, mapped by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import detection
from backbone import WeightsError
from detection.data.voc import VOC_CLASSES
from detection.modeling.build import build
from detection.weights.classes import map_classes
from detection.weights.load import StartingWeights, load_initial

COCO = ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "bird", "cat", "dog")
COCO += ("horse", "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv", "laptop", "vase")
FORMER, WANTED = ("dog", "airplane", "tv"), ("aeroplane", "ferret", "dog", "tvmonitor")
SCORES, BOXES, MASKS = "box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor"


@pytest.fixture(scope="module", autouse=True)
def registered():
    detection.register()


def model_of(classes: int, *more: object) -> torch.nn.Module:
    keys = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", classes, "MODEL.ROI_BOX_HEAD.FC_DIM", 8]
    return build(detection.get_config("mini_faster_rcnn_r18.yaml", [*keys, *more]))


def weights_of(model: torch.nn.Module, classes: tuple[str, ...]) -> StartingWeights:
    # Rows of boxes begin near zero; as a training would, this sets each apart.
    tensors = dict(model.state_dict())
    tensors |= {name: value + torch.rand_like(value) for name, value in tensors.items() if "roi_heads" in name}
    return StartingWeights("coco.pth", True, tensors, classes=list(classes))


def load(model: torch.nn.Module, weights: StartingWeights, classes: tuple[str, ...]) -> str:
    config = detection.get_config("mini_faster_rcnn_r18.yaml")
    return load_initial(model, weights, config, classes)


def test_all_of_voc_is_in_coco():
    mapping = map_classes(COCO, VOC_CLASSES)
    assert None not in mapping and len(set(mapping)) == 20
    pairs = {name: COCO[place] for name, place in zip(VOC_CLASSES, mapping)}
    assert {name: pairs[name] for name in VOC_CLASSES if pairs[name] != name} == {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    assert map_classes(VOC_CLASSES, ("vase", "couch")) == [None, VOC_CLASSES.index("sofa")]


@pytest.mark.parametrize("more", [(), ("MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead")])
def test_rows_of_the_same_meaning_are_copied(more):
    weights = weights_of(model_of(3, *more), FORMER)
    model = model_of(4, *more)
    heads = model.roi_heads
    fresh = {name: tensor.clone() for name, tensor in heads.state_dict().items()}
    line = load(model, weights, WANTED)
    assert "3 of 4 classes mapped by name from 3, initialised anew: ferret" in line
    now = heads.state_dict()
    for layer, rows, background in ((SCORES, 1, True), (BOXES, 4, False), (MASKS, 1, False)):
        if layer == MASKS and not more:
            continue
        for part in ("weight", "bias"):
            name = f"{layer}.{part}"
            old, new = weights.tensors[f"roi_heads.{name}"].split(rows), now[name].split(rows)
            assert torch.equal(new[0], old[1]) and torch.equal(new[2], old[0]) and torch.equal(new[3], old[2])
            assert torch.equal(new[1], fresh[name].split(rows)[1])
            if background:
                assert torch.equal(new[4], old[3])
    assert torch.equal(now["box_head.fc1.weight"], weights.tensors["roi_heads.box_head.fc1.weight"])


def test_boxes_for_all_classes_stay_as_they_are():
    agnostic = ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    weights = weights_of(model_of(3, *agnostic), FORMER)
    model = model_of(4, *agnostic)
    load(model, weights, WANTED)
    assert torch.equal(model.state_dict()[f"roi_heads.{BOXES}.weight"], weights.tensors[f"roi_heads.{BOXES}.weight"])


def test_another_order_of_as_many_classes_is_mapped():
    weights = weights_of(model_of(3), FORMER)
    model = model_of(3)
    assert "3 of 3 classes mapped" in load(model, weights, FORMER[::-1])
    rows = model.state_dict()[f"roi_heads.{SCORES}.bias"]
    assert torch.equal(rows, weights.tensors[f"roi_heads.{SCORES}.bias"][[2, 1, 0, 3]])


def test_the_same_classes_are_loaded_as_they_are():
    weights = weights_of(model_of(3), FORMER)
    model = model_of(3)
    assert "mapped" not in load(model, weights, FORMER)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.tensors.items())


def test_without_names_another_number_of_classes_does_not_fit():
    weights = replace(weights_of(model_of(3), FORMER), classes=[])
    with pytest.raises(WeightsError, match="coco.pth: does not fit the detector of this config"):
        load(model_of(4), weights, WANTED)

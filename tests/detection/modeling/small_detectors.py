"""Detectors small enough for slow references, with random weights that find something."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes
from peers import config
from randomize import randomize
from torch import Tensor, nn

from backbone.engine.config import dump
from detection.inference.transform import TestTransform
from detection.modeling.backbone import network_of
from detection.modeling.build import build

SMALL = {
    "MODEL__RPN__PRE_NMS_TOPK_TEST": 60,
    "MODEL__RPN__POST_NMS_TOPK_TEST": 12,
    "MODEL__RPN__PRE_NMS_TOPK_TRAIN": 60,
    "MODEL__RPN__POST_NMS_TOPK_TRAIN": 20,
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 8,
    "MODEL__ROI_HEADS__NUM_CLASSES": 3,
    "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.2,
    "MODEL__FPN__OUT_CHANNELS": 16,
    "MODEL__ROI_BOX_HEAD__FC_DIM": 16,
    "MODEL__ROI_MASK_HEAD__CONV_DIM": 8,
}
KINDS = {
    "c4": ("coco_paper_r101.yaml", {"MODEL__BACKBONE__NAME": "resnet18"}),
    "fpn": ("coco_faster_rcnn_r50_fpn.yaml", {"MODEL__BACKBONE__NAME": "resnet18_fpn"}),
    "mask": ("coco_mask_rcnn_r50_fpn.yaml", {"MODEL__BACKBONE__NAME": "resnet18_fpn"}),
    "vgg": ("voc_paper_vgg16_07.yaml", {"MODEL__ANCHOR_GENERATOR__SIZES": [[64, 128, 256, 512]]}),
}


def settings_of(kind: str, **changes: object) -> CfgNode:
    name, own = KINDS[kind]
    return config(name, **{**SMALL, **own, **changes})


def detector(settings: CfgNode, seed: int = 0) -> nn.Module:
    """Build a detector that is sure of some things, and moves its boxes by tens of pixels."""
    torch.manual_seed(seed)
    model = build(settings).eval()
    randomize(network_of(model), seed)
    head, generator = model.roi_heads, torch.Generator().manual_seed(seed)
    if hasattr(head, "res5"):
        randomize(head.res5, seed)
    with torch.no_grad():
        for module in model.proposal_generator.rpn_head.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * 0.02)
        for layer, spread in ((head.box_predictor.cls_score, 2.0), (head.box_predictor.bbox_pred, 0.7)):
            values = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(values * spread / layer.in_features**0.5)
    return model


def level_out(model: nn.Module, sample: dict) -> nn.Module:
    """Scale the sibling layers to the features of a sample's proposals, so that neither explodes nor vanishes."""
    with torch.no_grad():
        images, features, boxes = parts(model, sample["image"])
        found = plain_regions(model, features, boxes)
        scale, mean = found.std(0).mean().clamp(min=1e-6), found.mean(0)
        if getattr(model.roi_heads, "global_context", False):
            height, width = images.image_sizes[0]
            mean = torch.cat([mean, plain_regions(model, features, torch.tensor([[0.0, 0.0, width, height]]))[0]])
        for layer in (model.roi_heads.box_predictor.cls_score, model.roi_heads.box_predictor.bbox_pred):
            layer.weight.div_(scale)
            layer.bias.copy_(-layer.weight @ mean)
    return model


def parts(model: nn.Module, image: Tensor) -> tuple[object, dict[str, Tensor], Tensor]:
    """Return the image list, the feature maps and the proposals (R, 4) of an image."""
    images = model.preprocess_image([{"image": image}])
    features = model.backbone(images.tensor)
    boxes = model.proposal_generator(images, features, None)[0][0].proposal_boxes.tensor
    return images, features, boxes


def plain_regions(model: nn.Module, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
    """Return the features of boxes, pooled one at a time."""
    head, found = model.roi_heads, []
    for box in boxes:
        if hasattr(head, "res5"):
            maps = head.pooler([features[name] for name in head.in_features], [Boxes(box[None])])
            found.append(head.res5(maps).flatten(2).mean(2)[0])
        else:
            maps = head.box_pooler([features[name] for name in head.box_in_features], [Boxes(box[None])])
            found.append(head.box_head(maps)[0].flatten())
    return torch.stack(found)


def sample_of(height: int, width: int, seed: int = 0, *, larger: float = 1.0) -> dict:
    """Return a test sample with some structure in its image; its file is `larger` than that."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=generator) * 255
    image = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].to(torch.uint8)
    return {"image": image, "height": round(height * larger), "width": round(width * larger)}


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """Return a BGR image with some structure."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def save_detector(path: Path, classes: list[str], category_ids: list[int], kind: str = "mask") -> Path:
    """Write a detector of three classes as a training leaves it; it finds something in every `photo`."""
    settings = settings_of(kind, INPUT__MIN_SIZE_TEST=96, INPUT__MAX_SIZE_TEST=160, MODEL__PIXEL_STD=[60.0] * 3)
    model = level_out(detector(settings), TestTransform(settings)(photo(90, 120, 0)))
    metadata = {"classes": classes, "category_ids": category_ids}
    torch.save({"model": model.state_dict(), "config": dump(settings), "metadata": metadata}, path)
    return path

"""detectron2's modules behind the choice of regions, without waits for the device: poolers, losses, counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.layers import cat
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

from backbone.engine.loading import to_device
from backbone.networks.conv_norm import runs_eagerly

from .proposals import KeptAnchors, PairedTransform
from .regions import SizedOutputLayers
from .sampling import QuietMatcher, SparingRPN, SparingSampling, foreground_of, indices, read_counts


def on_device(sample: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return a sample of the loader with its tensors on the device, copied without a wait."""
    place = torch.device(device)
    there = {"image": to_device(sample["image"], place)}
    for name in ("instances", "proposals"):
        if name in sample:
            fields = {field: _moved(value, place) for field, value in sample[name].get_fields().items()}
            there[name] = Instances(sample[name].image_size, **fields)
    return {**sample, **there}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return to_device(value, device)
    if type(value) in (Boxes, BitMasks):
        return type(value)(to_device(value.tensor, device))
    # A list of a user's own, say, has no place.
    return value.to(device) if hasattr(value, "to") else value


class StepCounts(EventStorage):
    """detectron2's storage of one step. Numbers that lie on the device stay there until they are logged.

    Attributes:
        on_device: these, by name.
    """

    def __init__(self, iteration: int = 0) -> None:
        super().__init__(iteration)
        self.on_device: dict[str, Tensor] = {}

    def put_scalar(self, name: str, value: Any, *arguments: Any, **keywords: Any) -> None:
        """See detectron2's."""
        if isinstance(value, Tensor):
            self.on_device[self._current_prefix + name] = value.detach()
        else:
            super().put_scalar(name, value, *arguments, **keywords)

    def counts(self) -> dict[str, Tensor | float]:
        """Return all numbers by name."""
        return {**{name: value for name, (value, _) in self.latest().items()}, **self.on_device}


class SparingPooler(ROIPooler):
    """detectron2's ROIPooler; it waits once for the numbers of boxes of all levels."""

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """See detectron2's."""
        fits = type(x) is type(box_lists) is list and len(x) == len(self.level_poolers) and len(x[0]) == len(box_lists)
        if not (fits and box_lists and runs_eagerly()) or type(box_lists[0]) is not Boxes:
            return super().forward(x, box_lists)
        images = [boxes.tensor.new_full((len(boxes), 1), index) for index, boxes in enumerate(box_lists)]
        regions = torch.cat([torch.cat(images), torch.cat([boxes.tensor for boxes in box_lists])], dim=1)
        if len(self.level_poolers) == 1:
            return self.level_poolers[0](x[0], regions)
        limits = (self.min_level, self.max_level, self.canonical_box_size, self.canonical_level)
        levels = assign_boxes_to_levels(box_lists, *limits)
        masks = [levels == level for level in range(len(x))]
        pooled = x[0].new_zeros(len(regions), x[0].shape[1], *self.output_size)
        for features, pooler, mask, number in zip(x, self.level_poolers, masks, *read_counts([masks])):
            chosen = indices(mask, number)
            pooled.index_put_((chosen,), pooler(features, regions[chosen]))
        return pooled


class SparingMaskHead(MaskRCNNConvUpsampleHead):
    """detectron2's mask head; a training step waits once, for the boxes in which polygons are drawn on the host."""

    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """See detectron2's."""
        if not self.training or self.vis_period or not any(map(len, instances)):
            return super().forward(x, instances)
        return {"loss_mask": mask_loss(self.layers(x), [i for i in instances if len(i)]) * self.loss_weight}


def mask_loss(logits: Tensor, instances: list[Instances]) -> Tensor:
    """Return detectron2's loss of mask logits (R, K or 1, M, M) of all images' regions, and note its accuracies."""
    boxes = [image.proposal_boxes.tensor for image in instances]
    if any(isinstance(image.gt_masks, PolygonMasks) for image in instances):
        boxes = torch.cat(boxes).cpu().split([len(image) for image in instances])
    side = logits.shape[-1]
    cropped = [image.gt_masks.crop_and_resize(of_image, side) for image, of_image in zip(instances, boxes)]
    truth = cat(cropped).to(logits.device, non_blocking=True)
    if logits.shape[1] == 1:
        own = logits[:, 0]
    else:
        own = logits[torch.arange(len(logits), device=logits.device), cat([image.gt_classes for image in instances])]
    inside = truth if truth.dtype == torch.bool else truth > 0.5
    wrong, number = (own > 0) != inside, truth.numel()
    positive = inside.sum().double()
    storage = get_event_storage()
    storage.put_scalar("mask_rcnn/accuracy", 1 - wrong.sum().double() / number)
    storage.put_scalar("mask_rcnn/false_positive", (wrong & ~inside).sum().double() / (number - positive).clamp(min=1))
    storage.put_scalar("mask_rcnn/false_negative", (wrong & inside).sum().double() / positive.clamp(min=1))
    return F.binary_cross_entropy_with_logits(own, truth.float(), reduction="mean")


class SparingHeads(SparingSampling, StandardROIHeads):
    """detectron2's StandardROIHeads, whose regions and masks are chosen with one wait for the device."""

    def _forward_mask(self, features: Mapping[str, Tensor], instances: list[Instances]) -> Any:
        foreground = foreground_of(instances) if self.training and self.mask_on else None
        if foreground is None or self.mask_pooler is None:
            return super()._forward_mask(features, instances)
        boxes = [image.proposal_boxes for image in foreground]
        return self.mask_head(self.mask_pooler([features[name] for name in self.mask_in_features], boxes), foreground)


class SparingCascade(SparingHeads, CascadeROIHeads):
    """detectron2's cascade; later stages match anew, and wait."""


class SparingRes5Heads(SparingSampling, Res5ROIHeads):
    """detectron2's Res5ROIHeads, whose regions are drawn with one wait for the device."""


IN_PLACE_OF = {
    DefaultAnchorGenerator: KeptAnchors,
    ROIPooler: SparingPooler,
    FastRCNNOutputLayers: SizedOutputLayers,
    MaskRCNNConvUpsampleHead: SparingMaskHead,
    StandardROIHeads: SparingHeads,
    CascadeROIHeads: SparingCascade,
    Res5ROIHeads: SparingRes5Heads,
}


def spare_waits(model: nn.Module) -> None:
    """Let detectron2's own modules in `model` wait less for the device; a user's own ones stay as they are."""
    for module in model.modules():
        kind = type(module)
        if kind is RPN and type(module.box2box_transform) is Box2BoxTransform:
            module.__class__ = SparingRPN
        elif kind in IN_PLACE_OF:
            module.__class__ = IN_PLACE_OF[kind]
        transform = getattr(module, "box2box_transform", None)
        if type(transform) is Box2BoxTransform:
            transform.__class__ = PairedTransform
        matchers = [getattr(module, name, None) for name in ("anchor_matcher", "proposal_matcher")]
        # Those of a cascade's later stages.
        for matcher in (*matchers, *getattr(module, "proposal_matchers", ())):
            if type(matcher) is Matcher:
                matcher.__class__ = QuietMatcher

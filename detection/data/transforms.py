"""Transforms of training samples: those of torchvision, and the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from backbone.common.draws import torch_draws_from
from backbone.common.errors import ConfigError

from .augment import bit_masks

# Takes a sample and its random generator; returns the sample, changed or another one.
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
Given = TypeVar("Given", bound=Callable[..., Any])
# Transforms from there take other things than a sample and its generator.
FOREIGN = ("torchvision.", "detectron2.", "fvcore.")
_transforms: dict[str, Transform | nn.Module] = {}


def register_transform(transform: Given) -> Given:
    """Add a transform to the training samples of all runs that begin in this process, behind those of the config.

    It is a transform of torchvision.transforms.v2, or a function of a sample and its generator, usable as a decorator.
    The sample has `image` (3, H, W) uint8 in INPUT.FORMAT, and `instances` with `gt_boxes` (XYXY, absolute pixels of
    that image), `gt_classes` and, with masks, `gt_masks`. All draws must come from the generator, which is a function
    of seed and step: then a resumed run sees the same samples. torchvision's transforms draw from it by themselves.
    """
    # A function that is registered again, as by a module that is imported anew, replaces the former one.
    name = getattr(transform, "__qualname__", "<lambda>")
    _transforms[str(id(transform)) if "<lambda>" in name else f"{transform.__module__}.{name}"] = transform
    return transform


def registered_transforms() -> tuple[Transform | nn.Module, ...]:
    """Return what was registered, in that order."""
    return tuple(_transforms.values())


def prepared(transform: Transform | nn.Module, channel_order: str) -> Transform:
    """Return a transform of torchvision in the form of one's own functions; those as they are.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(transform, (v2.Transform, nn.Sequential)):
        return Torchvision(transform, channel_order)
    if not callable(transform) or type(transform).__module__.startswith(FOREIGN):
        raise ConfigError(
            f"the transform {transform!r:.80} is neither one of torchvision.transforms.v2 nor a function of a sample "
            "and its generator"
        )
    return transform


class Torchvision:
    """A transform of torchvision.transforms.v2 on a sample: on its image, boxes, masks and keypoints.

    Its draws follow from the sample's generator. Objects whose box or mask has no area afterwards are removed.

    Args:
        channel_order: of the sample's images; the transform gets RGB.
        image_alone: the transform changes no place, so boxes and masks need not pass through it.
    """

    def __init__(self, transform: nn.Module, channel_order: str, *, image_alone: bool = False) -> None:
        self.transform = transform
        self.reversed = channel_order == "BGR"
        self.image_alone = image_alone

    def __call__(self, sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """Return the changed sample.

        Raises:
            ConfigError: the transform gives another kind of image, or the sample has given proposals.
        """
        image = self._rgb(sample["image"])
        # torchvision knows float images of 0 to 1 alone.
        scale = 255 if image.is_floating_point() else 1
        inputs = {"image": tv_tensors.Image(image / scale if scale > 1 else image)}
        if not self.image_alone:
            if "proposals" in sample:
                raise ConfigError(f"{self._name}: proposals of SOLVER.SCHEME alternating cannot pass through it")
            inputs |= _inputs_of(sample["instances"])
        with torch_draws_from(random):
            outputs = self.transform(inputs)
        changed = outputs["image"].as_subclass(torch.Tensor)
        if changed.dtype != image.dtype or changed.ndim != 3 or len(changed) != len(image):
            raise ConfigError(
                f"{self._name} turns images {tuple(image.shape)} of {image.dtype} into {tuple(changed.shape)} of "
                f"{changed.dtype}; leave conversions, Normalize and the like out: the model normalises"
            )
        result = {**sample, "image": self._rgb(changed * scale if scale > 1 else changed)}
        if not self.image_alone:
            result["instances"] = _changed_instances(sample["instances"], inputs, outputs)
        return result

    @property
    def _name(self) -> str:
        return f"the transform {type(self.transform).__name__}"

    def _rgb(self, image: Tensor) -> Tensor:
        return image[[2, 1, 0]] if self.reversed else image


def _inputs_of(instances: Instances) -> dict[str, Tensor]:
    size = instances.image_size
    # In the place of classes, so that SanitizeBoundingBoxes says which are left.
    inputs = {
        "boxes": tv_tensors.BoundingBoxes(instances.gt_boxes.tensor, format="XYXY", canvas_size=size),
        "labels": torch.arange(len(instances)),
    }
    if instances.has("gt_masks"):
        inputs["masks"] = tv_tensors.Mask(bit_masks(instances).tensor)
    if instances.has("gt_keypoints"):
        if not hasattr(tv_tensors, "KeyPoints"):
            raise ConfigError("torchvision's transforms move keypoints from version 0.23 on; install a newer one")
        inputs["keypoints"] = tv_tensors.KeyPoints(instances.gt_keypoints.tensor[..., :2], canvas_size=size)
    return inputs


def _changed_instances(before: Instances, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Instances:
    size = tuple(outputs["image"].shape[-2:])
    if size == before.image_size and all(
        torch.equal(inputs[name], outputs[name]) for name in inputs if name != "image"
    ):
        return before  # polygons stay polygons
    rows = outputs["labels"]
    height, width = size
    boxes = outputs["boxes"].as_subclass(torch.Tensor).clamp(min=0)
    after = Instances(size)
    after.gt_boxes = Boxes(boxes.minimum(torch.tensor([width, height, width, height])))
    after.gt_classes = before.gt_classes[rows]
    kept = after.gt_boxes.nonempty()
    if "masks" in outputs:
        after.gt_masks = BitMasks(outputs["masks"].as_subclass(torch.Tensor).bool())
        kept &= after.gt_masks.nonempty()
    if "keypoints" in outputs:
        points = outputs["keypoints"].as_subclass(torch.Tensor)
        points = points[rows] if len(points) != len(rows) else points
        seen = before.gt_keypoints.tensor[rows][..., 2:]
        inside = ((points >= 0) & (points <= torch.tensor([width, height]))).all(dim=-1, keepdim=True)
        after.gt_keypoints = Keypoints(torch.cat([points, seen], dim=-1) * (inside & (seen > 0)))
    return after[kept]

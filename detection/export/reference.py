"""What the detector itself computes: its detections, and the raw values that they come from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..config.names import is_retinanet
from ..inference.detector import Detector
from .graph import DENSE, IMAGE_INDEX, MASKS, PROPOSALS, REGIONS, dense_head, flat, predictors


@torch.no_grad()
def of_detector(detector: Detector, pixels: Tensor) -> dict[str, np.ndarray]:
    """Return what the detector itself finds, without the rescaling to another image size.

    Args:
        pixels: (3, H, W), as the network takes them.
    """
    if is_retinanet(detector.config):
        found = detector.model([{"image": pixels}])[0]["instances"].to("cpu")
    else:
        found = detector.model.inference([{"image": pixels}], do_postprocess=False)[0].to("cpu")
    values = {
        "boxes": found.pred_boxes.tensor.numpy(),
        "scores": found.scores.numpy(),
        "classes": found.pred_classes.numpy(),
    }
    return {**values, **({MASKS: found.pred_masks.numpy()} if found.has("pred_masks") else {})}


@torch.no_grad()
def raw_of_detector(detector: Detector, pixels: Tensor, file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the raw values of DetectorGraph from the detector's own modules, for the proposals of the file.

    Non-maximum suppression may give other proposals on each side where scores are nearly the same. So the scores and
    deltas of regions are those of the file's proposals, and the masks those of its boxes.

    Args:
        pixels: (N, 3, H, W).
        file: what the file gives on `pixels`, its raw values too.
    """
    model = detector.model
    images = model.preprocess_image([{"image": image} for image in pixels])
    with _recorded([dense_head(model)]) as dense:
        features = model.backbone(images.tensor)
        if is_retinanet(detector.config):
            model.head([features[name] for name in model.head_in_features])
        else:
            model.proposal_generator(images, features, None)
    values = {name: flat(levels) for name, levels in zip(DENSE, dense[0])}

    def by_image(index: Tensor, boxes: str, **fields: Tensor) -> list[Instances]:
        """Return the rows of each image; `boxes` names the field that is Boxes."""
        moved = {name: value.to(model.device) for name, value in fields.items()}
        parts = [{name: value[index == number] for name, value in moved.items()} for number in range(len(pixels))]
        return [Instances(size, **{**part, boxes: Boxes(part[boxes])}) for size, part in zip(images.image_sizes, parts)]

    if PROPOSALS[0] in file:
        boxes, index = (file[name] for name in PROPOSALS)
        proposals = by_image(index, "proposal_boxes", proposal_boxes=boxes, objectness_logits=torch.zeros(len(boxes)))
        with _recorded(predictors(model)) as stages:
            model.roi_heads(images, features, proposals)
        values |= {name: torch.cat(parts, dim=1) for name, parts in zip(REGIONS, zip(*stages))}
    if MASKS in file:
        index = file.get(IMAGE_INDEX, torch.zeros(len(file["boxes"])))
        given = by_image(index, "pred_boxes", pred_boxes=file["boxes"], pred_classes=file["classes"])
        found = model.roi_heads.forward_with_given_boxes(features, given)
        values[MASKS] = torch.cat([one.pred_masks for one in found])
    return {name: value.cpu() for name, value in values.items()}


@contextlib.contextmanager
def _recorded(modules: list[nn.Module]) -> Iterator[list[Any]]:
    """Collect what the modules return, in the order of their calls."""
    outputs: list[Any] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output)) for module in modules
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()

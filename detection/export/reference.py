"""What the detector itself computes: its detections, and the raw values that they come from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..config.names import is_retinanet
from ..inference.detector import Detector
from .graph import DENSE, IMAGE_INDEX, MASKS, PROPOSALS, REGIONS, UNPASTED, dense_head, flat, predictors
from .pasting import THRESHOLD

TIE = 1e-3  # of a probability


@torch.no_grad()
def of_detector(detector: Detector, pixels: Tensor, paste_size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """Return what the detector itself finds, without the rescaling to another image size.

    Args:
        pixels: (3, H, W), as the network takes them.
        paste_size: height and width of an image to rescale to, and to paste the masks into.
    """
    if paste_size is not None:
        sample = {"image": pixels, "height": paste_size[0], "width": paste_size[1]}
        found = detector.model([sample])[0]["instances"].to("cpu")
    elif is_retinanet(detector.config):
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
    boxes, masks = UNPASTED if UNPASTED[1] in file else ("boxes", MASKS)
    if masks in file:
        index = file.get(IMAGE_INDEX, torch.zeros(len(file[boxes])))
        given = by_image(index, "pred_boxes", pred_boxes=file[boxes], pred_classes=file["classes"])
        found = model.roi_heads.forward_with_given_boxes(features, given)
        values[masks] = torch.cat([one.pred_masks for one in found])
    return {name: value.cpu() for name, value in values.items()}


def pasted_otherwise(file: Mapping[str, Tensor], paste_size: tuple[int, int]) -> float:
    """Return the share of the pixels of all masks that detectron2's own pasting has otherwise, ties left aside.

    Args:
        file: what a file that pastes masks gives, its raw values too.
    """
    masks, found = file[UNPASTED[1]][:, 0], file[MASKS].bool()
    # Rounding decides on pixels whose probability is the threshold.
    most, least = (paste_masks_in_image(masks, file["boxes"], paste_size, THRESHOLD + by).bool() for by in (-TIE, TIE))
    return ((found & ~most) | (least & ~found)).sum().item() / max(most.sum().item(), 1)


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

"""Boxes of an image's classes: by RPNs on views of the image, and by R-CNNs on the boxes of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

from ..common.images import resize_image
from ..engine.solver import device_of
from .boxes import decode, make_anchors
from .networks import STRIDE
from .samples import warp
from .weights import Member

# (pixels (h, w, 3), x, y of the view's corner in the resized image, image pixels a view pixel along x and y).
View = tuple[np.ndarray, float, float, float, float]


def views_of(image: np.ndarray, config: Any) -> Iterator[View]:
    """Yield what an RPN sees of an image (H, W, 3), by TEST.VIEWS."""
    height, width = image.shape[:2]
    crop = config.INPUT.TRAIN_SIZE
    dense = config.TEST.VIEWS == "dense"
    for side in config.TEST.DENSE_SIDES if dense else (config.INPUT.TEST_SHORTER_SIDE,):
        # The longer side is cut to whole pixels, as the classifier's tests do.
        w, h = width * side // min(width, height), height * side // min(width, height)
        resized = resize_image(image, w, h)
        if dense:
            yield resized, 0, 0, width / w, height / h
        else:
            x, y = round((w - crop) / 2), round((h - crop) / 2)
            yield resized[y : y + crop, x : x + crop], x, y, width / w, height / h


@torch.no_grad()
def propose(members: Sequence[Member], image: np.ndarray, classes: Sequence[int], config: Any) -> tuple[Tensor, Tensor]:
    """Return the boxes of RPNs for some classes of an image, those of all views and networks together.

    Args:
        image: (H, W, 3) RGB uint8.
        config: of this run, for TEST.

    Returns:
        scores (k, M) in 0..1 and boxes (k, M, 4) in pixels of the image, cut to it.
    """
    height, width = image.shape[:2]
    device = device_of(config)
    scores, boxes = [], []
    for member in members:
        model = member.config.MODEL
        for pixels, x, y, across, down in views_of(image, config):
            inputs = member.prepare(_to_tensor([pixels], device))
            logits, deltas = _run(member, inputs, torch.tensor([list(classes)], device=device), config)
            anchors = make_anchors(*logits.shape[-2:], STRIDE, model.ANCHOR_SIZES, model.ANCHOR_RATIOS)
            found = decode(torch.from_numpy(anchors).to(device), deltas[0])
            scale = found.new_tensor([across, down] * 2)
            found = clip_boxes_to_image((found + found.new_tensor([x, y] * 2)) * scale, (height, width))
            scores.append(logits[0].sigmoid().flatten(1))
            boxes.append(found.flatten(1, 3))
    return torch.cat(scores, 1), torch.cat(boxes, 1)


def best_proposals(scores: Tensor, boxes: Tensor, *, number: int, iou: float) -> Tensor:
    """Return the best boxes of one class after NMS, (up to `number`, 4), those without area left out."""
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    scores, boxes = scores[kept], boxes[kept]
    # NMS looks at pairs: of hundreds of thousands of anchors only the best can matter.
    order = scores.topk(min(len(scores), 20 * number)).indices
    return boxes[order][nms(boxes[order], scores[order], iou)[:number]]


def to_pixels(boxes: Tensor, width: int, height: int) -> np.ndarray:
    """Return boxes grown to whole pixels of the image, (N, 4) float32."""
    array = boxes.cpu().numpy()
    grown = np.concatenate([np.floor(array[:, :2]), np.ceil(array[:, 2:])], axis=1)
    return grown.clip(0, [width, height, width, height]).astype(np.float32)


@torch.no_grad()
def localize(
    members: Sequence[Member],
    proposers: Sequence[Member],
    image: np.ndarray,
    classes: Sequence[int],
    config: Any,
) -> np.ndarray:
    """Return the best box of each of an image's classes, (k, 4) float32.

    Args:
        members: RPNs, or R-CNNs if there are `proposers`.
        proposers: RPNs whose best boxes the R-CNNs score and move.
    """
    scores, boxes = propose(proposers or members, image, classes, config)
    if not proposers:
        return boxes[torch.arange(len(classes)), scores.argmax(1)].cpu().numpy()
    height, width = image.shape[:2]
    found = []
    for label, own_scores, own_boxes in zip(classes, scores, boxes):
        number, iou = config.MODEL.PROPOSALS, config.MODEL.PROPOSAL_NMS
        regions = to_pixels(best_proposals(own_scores, own_boxes, number=number, iou=iou), width, height)
        found.append(
            _rescore(members, image, regions, label, config) if len(regions) else np.float32([0, 0, width, height])
        )
    return np.stack(found)


def _rescore(members: Sequence[Member], image: np.ndarray, regions: np.ndarray, label: int, config: Any) -> np.ndarray:
    """Return the region that R-CNNs score highest, moved by them; scores and moves are averaged over the networks."""
    device = device_of(config)
    scores, deltas = torch.zeros(len(regions), device=device), torch.zeros(len(regions), 4, device=device)
    for member in members:
        size = member.config.INPUT.TRAIN_SIZE
        for start in range(0, len(regions), config.TEST.BATCH_SIZE):
            part = slice(start, start + config.TEST.BATCH_SIZE)
            inputs = member.prepare(_to_tensor([warp(image, region, size) for region in regions[part]], device))
            wanted = torch.full((len(inputs), 1), label, device=device)
            logits, moves = _run(member, inputs, wanted, config)
            scores[part] += logits.flatten().sigmoid() / len(members)
            deltas[part] += moves.flatten(0, 4) / len(members)
    best = scores.argmax()
    moved = decode(torch.from_numpy(regions).to(device)[best], deltas[best])
    return clip_boxes_to_image(moved, image.shape[:2]).cpu().numpy()


def _run(member: Member, inputs: Tensor, classes: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    amp = config.SOLVER.AMP
    layout = torch.channels_last if config.MODEL.CHANNELS_LAST else torch.contiguous_format
    with torch.autocast(inputs.device.type, getattr(torch, amp.DTYPE), enabled=amp.ENABLED):
        return member.network(inputs.contiguous(memory_format=layout), classes)


def _to_tensor(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)

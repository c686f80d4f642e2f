"""From the predictions of all regions to detections: NMS or Soft-NMS, then box voting."""

from __future__ import annotations

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from ..proposals import clip
from .methods import Methods
from .predictions import RegionScores


def select(found: RegionScores, size: tuple[int, int], methods: Methods) -> Instances:
    """Return the detections of an image (height, width), best first: pred_boxes, scores, pred_classes."""
    finite = torch.isfinite(found.boxes).flatten(1).all(1) & torch.isfinite(found.scores).all(1)
    every_score, every_box = found.scores[finite, :-1], clip(found.boxes[finite], size)
    confident = every_score > methods.score
    if methods.least_side:
        confident &= ((every_box[..., 2:] - every_box[..., :2]) >= methods.least_side).all(-1)
    boxes, scores, classes = every_box[confident], every_score[confident], confident.nonzero()[:, 1]
    if methods.soft:
        kept, kept_scores = soft_nms(boxes, scores, classes, methods)
    else:
        kept = batched_nms(boxes, scores, classes, methods.nms)
        kept_scores = scores[kept]
    if methods.limit >= 0:
        kept, kept_scores = kept[: methods.limit], kept_scores[: methods.limit]
    final = vote(boxes[kept], classes[kept], boxes, scores, classes, methods.vote) if methods.vote else boxes[kept]
    return Instances(size, pred_boxes=Boxes(final), scores=kept_scores, pred_classes=classes[kept])


def vote(
    kept: Tensor, kept_classes: Tensor, boxes: Tensor, scores: Tensor, classes: Tensor, least_iou: float
) -> Tensor:
    """Return each kept box (N, 4) as the mean, weighted by score, of the boxes of its class with that IoU or more.

    Box voting of Gidaris & Komodakis (arXiv 1505.01749). `boxes` (M, 4), scores (M,) and classes (M,) are of all boxes
    before NMS, the kept ones included; a kept box without area stays as it is.
    """
    votes = (pairwise_iou(Boxes(kept), Boxes(boxes)) >= least_iou) & (kept_classes[:, None] == classes[None, :])
    weights = votes * scores
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total.clamp(min=1e-12), kept)


def soft_nms(boxes: Tensor, scores: Tensor, classes: Tensor, methods: Methods) -> tuple[Tensor, Tensor]:
    """Return indices and decayed scores of the boxes that Soft-NMS keeps, best first.

    Bodla et al. (arXiv 1704.04503): of each class, the best box is taken, and the scores of the others fall with their
    IoU with it: by exp(-IoU^2 / sigma), or by 1 - IoU where it is above the threshold of NMS. All classes take their
    turns together; none takes more than the detections that an image may have.
    """
    table = _by_class(classes)
    if not table.numel():
        return classes.new_zeros(0), scores.new_zeros(0)
    present = table >= 0
    # A row for each class, filled up with boxes of no score.
    rest = torch.where(present, scores[table], scores.new_zeros(()))
    places = boxes[table]
    lanes = torch.arange(len(table), device=table.device)
    # Nothing in a round waits for the device: what has fallen too low is taken too, and left out at the end.
    rounds = table.shape[1] if methods.limit < 0 else min(table.shape[1], methods.limit)
    taken, values = table.new_zeros((rounds, len(table))), scores.new_zeros((rounds, len(table)))
    for turn in range(rounds):
        best, index = rest.max(1)
        taken[turn], values[turn] = table[lanes, index], best
        if best.device.type == "cpu" and not (best >= methods.least_score).any():
            break
        rest[lanes, index] = 0
        rest = rest * _decay(_iou_with(places, places[lanes, index]), methods)
    open_lanes = values >= methods.least_score
    kept, kept_scores = taken[open_lanes], values[open_lanes]
    order = kept_scores.argsort(descending=True, stable=True)
    return kept[order], kept_scores[order]


def _decay(iou: Tensor, methods: Methods) -> Tensor:
    if methods.soft == "gaussian":
        return torch.exp(-(iou**2) / methods.sigma)
    return torch.where(iou > methods.nms, 1 - iou, torch.ones_like(iou))


def _by_class(classes: Tensor) -> Tensor:
    """Return (C, M) indices of the boxes of each class that occurs, filled up with -1."""
    names, counts = torch.unique(classes, return_counts=True)
    if not len(names):
        return classes.new_zeros((0, 0))
    order = classes.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    columns = torch.arange(int(counts.max()), device=classes.device)
    positions = (starts[:, None] + columns).clamp(max=len(classes) - 1)
    return torch.where(columns < counts[:, None], order[positions], -1)


def _iou_with(boxes: Tensor, one: Tensor) -> Tensor:
    """Return the IoU (C, M) of boxes (C, M, 4) with the box of their row (C, 4)."""
    low, high = torch.maximum(boxes[..., :2], one[:, None, :2]), torch.minimum(boxes[..., 2:], one[:, None, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas, area = (boxes[..., 2:] - boxes[..., :2]).prod(-1), (one[:, 2:] - one[:, :2]).prod(-1)
    return shared / (areas + area[:, None] - shared).clamp(min=1e-12)

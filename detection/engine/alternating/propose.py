"""Proposals of a trained RPN on the training set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, pairwise_iou
from torch import nn

from backbone.engine import distributed
from backbone.engine.image_progress import ImageProgress
from backbone.engine.loading import make_loader, resolve_workers, until_error

from ...data.proposals import Proposals, pack
from ...data.samples import EvaluationSamples
from ...data.sets import DetectionSet
from ...inference.transform import TestMapper, TestTransform
from ...modeling.build import build
from ...weights.load import load_detector
from ..datasets import used_for_training

RECALL_AT = 0.5  # IoU


@dataclass(frozen=True)
class Proposed:
    """The proposals of a set; `recall` is the share of its objects that one of them covers with IoU 0.5 or more."""

    proposals: Proposals
    recall: float

    def line(self) -> str:
        counts = np.diff(self.proposals.starts)
        mean = counts.sum() / max(1, np.count_nonzero(counts))
        return f"{mean:.0f} an image, recall {self.recall:.1%} of the objects at IoU {RECALL_AT}"


def proposer(config: CfgNode, weights: str) -> nn.Module:
    """Build the detector of a checkpoint, with as many proposals as training has (MODEL.RPN.*_TOPK_TRAIN)."""
    many = config.clone()
    many.defrost()
    many.MODEL.RPN.PRE_NMS_TOPK_TEST = config.MODEL.RPN.PRE_NMS_TOPK_TRAIN
    many.MODEL.RPN.POST_NMS_TOPK_TEST = config.MODEL.RPN.POST_NMS_TOPK_TRAIN
    many.freeze()
    model = build(many)
    load_detector(model, weights)
    return model.eval()


def propose(model: nn.Module, images: DetectionSet, config: CfgNode, *, title: str) -> Proposed | None:
    """Run the RPN on the images that are trained on, unmirrored and at the size of a test; others get no proposals.

    A collective call. Processes share the images; the main one gets the result, the others None.
    """
    own = used_for_training(images, config)[distributed.rank() :: distributed.world_size()].tolist()
    workers = resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size())
    # An image that cannot be read gets none; the training names it, and takes another.
    samples = EvaluationSamples(TestMapper(images, TestTransform(config, views=False)), own, lenient=True)
    loader = until_error(make_loader(samples, workers=workers if len(own) > 8 else 0, pin_memory=False))
    found, covered, objects = [], 0, 0
    with ImageProgress(len(own) * distributed.world_size(), title, visible=True) as progress:
        for index, batch in zip(own, loader):
            if isinstance(batch[0], str):
                continue
            boxes = _proposals_of(model, batch[0])
            found.append((index, boxes))
            truth = _objects(images, index)
            covered += _covered(truth, boxes)
            objects += len(truth)
            progress.add(1)
    indices, boxes = [index for index, _ in found], pack([boxes for _, boxes in found])
    parts = distributed.gather_to_main((indices, boxes, covered, objects))
    if not distributed.is_main():
        return None
    of_image = [np.zeros((0, 4), dtype=np.float32)] * len(images)
    for indices, boxes, *_ in parts:
        for place, index in enumerate(indices):
            of_image[index] = boxes.of(place)
    covered, objects = (sum(part[column] for part in parts) for column in (2, 3))
    return Proposed(pack(of_image), covered / max(1, objects))


@torch.inference_mode()
def _proposals_of(model: nn.Module, sample: dict) -> np.ndarray:
    """Return the proposals (R, 4) of a test sample in pixels of its file."""
    images = model.preprocess_image([sample])
    proposals = model.proposal_generator(images, model.backbone(images.tensor), None)[0][0]
    height, width = images.image_sizes[0]
    boxes = Boxes(proposals.proposal_boxes.tensor.float())
    boxes.scale(sample["width"] / width, sample["height"] / height)
    boxes.clip((sample["height"], sample["width"]))
    return boxes[boxes.nonempty()].tensor.cpu().numpy()


def _objects(images: DetectionSet, index: int) -> np.ndarray:
    rows = slice(images.starts[index], images.starts[index + 1])
    return images.boxes[rows][~images.crowd[rows]]


def _covered(objects: np.ndarray, boxes: np.ndarray) -> int:
    if not len(objects) or not len(boxes):
        return 0
    overlaps = pairwise_iou(Boxes(torch.from_numpy(objects)), Boxes(torch.from_numpy(boxes)))
    return int((overlaps.max(dim=1).values >= RECALL_AT).sum())

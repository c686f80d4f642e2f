"""A detector as a function of one image, in a form that exporters can write."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = "image"
OUTPUTS = ("boxes", "scores", "classes")
MASKS = "masks"


class DetectorGraph(nn.Module):
    """Normalisation, network, proposals, heads and both non-maximum suppressions.

    Args:
        model: a detector of ours, on any device; a copy on the CPU is taken, in float32 and evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().requires_grad_(False)
        self.divisor = max(1, self.model.backbone.size_divisibility)
        self.eval()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out."""
        return (*OUTPUTS, MASKS) if getattr(self.model.roi_heads, "mask_on", False) else OUTPUTS

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect on one image.

        Args:
            image: (3, H, W), 0..255, float32, resized, channels in the order of INPUT.FORMAT.

        Returns:
            boxes (N, 4) XYXY in its pixels, scores (N,) falling, classes (N,) int64, and of Mask R-CNN the masks'
            probabilities (N, 1, 28, 28) inside each box.
        """
        model = self.model
        height, width = image.shape[-2:]
        pixels = (image - model.pixel_mean) / model.pixel_std
        pixels = F.pad(pixels, (0, -width % self.divisor, 0, -height % self.divisor))
        size = torch.stack([_as_tensor(height), _as_tensor(width)]) if torch.jit.is_tracing() else (height, width)
        images = ImageList(pixels[None], [size])
        features = model.backbone(images.tensor)
        (proposals,), _ = model.proposal_generator(images, features, None)
        found = self._classify(features, proposals.proposal_boxes, size)
        values = (found.pred_boxes.tensor, found.scores, found.pred_classes)
        return (*values, self._masks(features, *values[::2])) if self.outputs[-1] == MASKS else values

    # detectron2's heads count regions in Python and split by that, which a trace keeps as a constant. One image needs
    # no split: what follows is their inference without it.

    def _classify(self, features: dict[str, Tensor], proposals: Boxes, size: Any) -> Instances:
        heads = self.model.roi_heads
        if isinstance(heads, Res5ROIHeads):
            inputs = self._res5(features, proposals).mean(dim=(2, 3))
        else:
            inputs = heads.box_head(heads.box_pooler([features[f] for f in heads.box_in_features], [proposals]))
        predictor = heads.box_predictor
        scores, deltas = predictor(inputs)
        found, _ = fast_rcnn_inference_single_image(
            predictor.box2box_transform.apply_deltas(deltas, proposals.tensor),
            F.softmax(scores, dim=-1),
            size,
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return found

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        heads = self.model.roi_heads
        if isinstance(heads, Res5ROIHeads):
            inputs = self._res5(features, Boxes(boxes))
        else:
            inputs = heads.mask_pooler([features[f] for f in heads.mask_in_features], [Boxes(boxes)])
        logits = heads.mask_head.layers(inputs)
        if logits.shape[1] > 1:
            logits = logits[torch.arange(classes.shape[0]), classes][:, None]
        return logits.sigmoid()

    def _res5(self, features: dict[str, Tensor], boxes: Boxes) -> Tensor:
        heads = self.model.roi_heads
        return heads.res5(heads.pooler([features[f] for f in heads.in_features], [boxes]))


def _as_tensor(value: int | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)

"""A detector as a function of one image, in a form that exporters can write."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.layers import layers_of

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
        self.layers = layers_of(self.model.roi_heads)
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
        pool = self.layers.region_features
        inputs = pool(heads, features, [proposals])
        if getattr(heads, "global_context", False):
            height, width = size
            whole = torch.stack([_as_tensor(value).to(inputs) for value in (0, 0, width, height)])
            context = pool(heads, features, [Boxes(whole[None])])
            inputs = torch.cat([inputs, context.expand(inputs.shape[0], -1)], dim=1)
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
        inputs = self.layers.mask_features(heads, features, [Boxes(boxes)])
        logits = heads.mask_head.layers(inputs)
        if logits.shape[1] > 1:
            logits = logits[torch.arange(classes.shape[0]), classes][:, None]
        return logits.sigmoid()


def _as_tensor(value: int | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)

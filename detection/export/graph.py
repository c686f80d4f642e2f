"""A detector as a function of one image, in a form that exporters can write."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.box_losses import class_probabilities
from ..modeling.layers import layers_of
from ..modeling.regions import without_small
from ..modeling.retinanet import ClippedRetinaNet

IMAGE = "image"
OUTPUTS = ("boxes", "scores", "classes")
MASKS = "masks"
# Raw values, from which the outputs are chosen: scores and box deltas of all anchors; the proposals; scores and box
# deltas of these, those of a cascade's stages beside each other.
DENSE = ("anchor_scores", "anchor_deltas")
PROPOSALS = "proposals"
REGIONS = ("region_scores", "region_deltas")


def dense_head(model: nn.Module) -> nn.Module:
    """Return what gives scores and deltas of all anchors, as lists by level."""
    return model.head if isinstance(model, RetinaNet) else model.proposal_generator.rpn_head


def predictors(model: nn.Module) -> list[nn.Module]:
    """Return what gives scores and deltas of regions, one for each stage."""
    found = model.roi_heads.box_predictor
    return list(found) if isinstance(found, nn.ModuleList) else [found]


def flat(levels: list[Tensor]) -> Tensor:
    """Return all values of all levels, (n,)."""
    return torch.cat([level.flatten() for level in levels])


class DetectorGraph(nn.Module):
    """Normalisation, network, proposals, heads and both non-maximum suppressions.

    Args:
        model: a detector of ours, on any device; a copy on the CPU is taken, in float32 and evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().requires_grad_(False)
        self.one_stage = isinstance(model, RetinaNet)
        self.layers = None if self.one_stage else layers_of(self.model.roi_heads)
        self.divisor = max(1, self.model.backbone.size_divisibility)
        self._dense: Any = None
        self._regions_raw: list[tuple[Tensor, Tensor]] = []
        dense_head(self.model).register_forward_hook(self._keep_dense)
        self.eval()

    def _keep_dense(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._dense = output

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out."""
        return (*OUTPUTS, MASKS) if getattr(getattr(self.model, "roi_heads", None), "mask_on", False) else OUTPUTS

    @property
    def raw_outputs(self) -> tuple[str, ...]:
        """Names of what comes out after `outputs`, for comparisons alone."""
        return DENSE if self.one_stage else (*DENSE, PROPOSALS, *REGIONS)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect on one image.

        Args:
            image: (3, H, W), 0..255, float32 or uint8, resized, channels in the order of INPUT.FORMAT.

        Returns:
            boxes (N, 4) XYXY in its pixels, scores (N,) falling, classes (N,) int64, and of Mask R-CNN the masks'
            probabilities (N, 1, 28, 28) inside each box; then the raw values.
        """
        model = self.model
        height, width = image.shape[-2:]
        pixels = (image - model.pixel_mean) / model.pixel_std
        pixels = F.pad(pixels, (0, -width % self.divisor, 0, -height % self.divisor))
        size = torch.stack([_as_tensor(height), _as_tensor(width)]) if torch.jit.is_tracing() else (height, width)
        images = ImageList(pixels[None], [size])
        features = model.backbone(images.tensor)
        if self.one_stage:
            values = self._one_stage([features[name] for name in model.head_in_features], size)
            return (*values, *map(flat, self._dense))
        (proposals,), _ = model.proposal_generator(images, features, None)
        dense, boxes = map(flat, self._dense), proposals.proposal_boxes
        self._regions_raw = []
        found = self._classify(features, boxes.clone(), size)
        raw = (*dense, boxes.tensor, *(torch.cat(parts, dim=1) for parts in zip(*self._regions_raw)))
        values = (found.pred_boxes.tensor, found.scores, found.pred_classes)
        masks = (self._masks(features, *values[::2]),) if self.outputs[-1] == MASKS else ()
        return (*values, *masks, *raw)

    # detectron2's heads count regions in Python and split by that, which a trace keeps as a constant. One image needs
    # no split: what follows is their inference without it.

    def _classify(self, features: dict[str, Tensor], proposals: Boxes, size: Any) -> Instances:
        heads = self.model.roi_heads
        stages = isinstance(heads, CascadeROIHeads)
        boxes, scores = (self._cascade if stages else self._regions)(features, proposals, size)
        predictor = heads.box_predictor[-1] if stages else heads.box_predictor
        found, _ = fast_rcnn_inference_single_image(
            boxes,
            scores,
            size,
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return found

    def _regions(self, features: dict[str, Tensor], proposals: Boxes, size: Any) -> tuple[Tensor, Tensor]:
        """Return boxes (R, 4 or 4 * K) and scores (R, K + 1) of all proposals."""
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
        self._regions_raw.append((scores, deltas))
        boxes = predictor.box2box_transform.apply_deltas(deltas, proposals.tensor)
        least_side = getattr(predictor, "least_side", 0.0)
        return boxes, without_small(boxes, class_probabilities(predictor, scores), size, least_side)

    def _cascade(self, features: dict[str, Tensor], proposals: Boxes, size: Any) -> tuple[Tensor, Tensor]:
        """See `_regions`: the boxes of the last stage, the mean scores of all."""
        heads, boxes, scores = self.model.roi_heads, proposals, []
        levels = [features[name] for name in heads.box_in_features]
        for head, predictor in zip(heads.box_head, heads.box_predictor):
            if scores:
                boxes.clip(size)
            logits, deltas = predictor(head(heads.box_pooler(levels, [boxes])))
            self._regions_raw.append((logits, deltas))
            boxes = Boxes(predictor.box2box_transform.apply_deltas(deltas, boxes.tensor))
            scores.append(class_probabilities(predictor, logits))
        return boxes.tensor, sum(scores) * (1.0 / len(scores))

    # RetinaNet's inference takes the smaller of two counts, which a trace keeps as it was; slices need no count.

    def _one_stage(self, levels: list[Tensor], size: Any) -> tuple[Tensor, ...]:
        model = self.model
        predictions = model._transpose_dense_predictions(model.head(levels), [model.num_classes, 4])
        found = [self._decode(*level) for level in zip(model.anchor_generator(levels), *predictions)]
        boxes, scores, classes = (torch.cat(values) for values in zip(*found))
        if isinstance(model, ClippedRetinaNet):
            cut = Boxes(boxes)
            cut.clip(size)
            kept = cut.nonempty()
            boxes, scores, classes = cut.tensor[kept], scores[kept], classes[kept]
        kept = batched_nms(boxes, scores, classes, model.test_nms_thresh)[: model.max_detections_per_image]
        # As the postprocessing does it.
        inside = Boxes(boxes[kept])
        inside.clip(size)
        kept_again = inside.nonempty()
        return inside.tensor[kept_again], scores[kept][kept_again], classes[kept][kept_again]

    def _decode(self, anchors: Boxes, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and classes of the best places of a level (1, H * W * A, K or 4)."""
        model, probabilities = self.model, logits[0].sigmoid()
        confident = probabilities > model.test_score_thresh
        scores, order = probabilities[confident].sort(descending=True)
        anchor, label = confident.nonzero()[order[: model.test_topk_candidates]].unbind(1)
        boxes = model.box2box_transform.apply_deltas(deltas[0][anchor], anchors.tensor[anchor])
        return boxes, scores[: model.test_topk_candidates], label

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        heads = self.model.roi_heads
        inputs = self.layers.mask_features(heads, features, [Boxes(boxes)])
        logits = heads.mask_head.layers(inputs)
        if logits.shape[1] > 1:
            logits = logits[torch.arange(classes.shape[0]), classes][:, None]
        return logits.sigmoid()


def _as_tensor(value: int | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)

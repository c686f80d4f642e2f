"""A detector as a function of images, in a form that exporters can write."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F

from ..inference.fast import lower
from ..modeling.box_losses import class_probabilities
from ..modeling.layers import layers_of
from ..modeling.regions import without_small
from ..modeling.retinanet import ClippedRetinaNet
from .pasting import pasted, rescaled
from .selection import FlatPooler, at_most, best, clipped, pick, rows_of, survivors

IMAGE = "image"
OUTPUTS = ("boxes", "scores", "classes")
MASKS = "masks"
# Of a file that pastes masks: height and width of the image that they are pasted into.
PASTE_SIZE = "paste_size"
# Of a file for several images: which of them each object is in.
IMAGE_INDEX = "image_index"
# Raw values, from which the outputs are chosen: scores and box deltas of all anchors; the proposals and their images;
# scores and box deltas of these, those of a cascade's stages beside each other.
DENSE = ("anchor_scores", "anchor_deltas")
PROPOSALS = ("proposals", "proposal_images")
REGIONS = ("region_scores", "region_deltas")
# What pasted masks are made of: boxes in pixels of the input, and probabilities inside of them.
UNPASTED = ("unpasted_boxes", "unpasted_masks")


def dense_head(model: nn.Module) -> nn.Module:
    """Return what gives scores and deltas of all anchors, as lists by level."""
    return model.head if isinstance(model, RetinaNet) else model.proposal_generator.rpn_head


def predictors(model: nn.Module) -> list[nn.Module]:
    """Return what gives scores and deltas of regions, one for each stage."""
    found = model.roi_heads.box_predictor
    return list(found) if isinstance(found, nn.ModuleList) else [found]


def has_masks(model: nn.Module) -> bool:
    """Whether a detector gives masks."""
    return getattr(getattr(model, "roi_heads", None), "mask_on", False)


def flat(levels: list[Tensor]) -> Tensor:
    """Return all values of all levels, (n,)."""
    return torch.cat([level.flatten() for level in levels])


class DetectorGraph(nn.Module):
    """Normalisation, network, proposals, heads and both non-maximum suppressions.

    Args:
        model: a detector of ours, on any device; a copy on the CPU is taken, in float32 and evaluation mode.
        batches: take several images of one size.
        paste: paste the masks into an image of any size, of which boxes then are too, as detectron2's postprocessing
            does.
        half: compute in float16 what TEST.PRECISION float16 does; boxes and scores stay in float32.
    """

    def __init__(self, model: nn.Module, batches: bool = False, paste: bool = False, half: bool = False) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().requires_grad_(False)
        if half:
            lower(self.model.eval(), "float16")
        self.batches, self.paste, self.half = batches, paste, half
        self.one_stage = isinstance(model, RetinaNet)
        self.layers = None if self.one_stage else layers_of(self.model.roi_heads)
        self.divisor = max(1, self.model.backbone.size_divisibility)
        self._dense: Any = None
        self._regions_raw: list[tuple[Tensor, Tensor]] = []
        dense_head(self.model).register_forward_hook(self._keep_dense)
        if not self.one_stage:
            for module in self.model.roi_heads.children():
                if isinstance(module, ROIPooler):
                    module.__class__ = FlatPooler
        self.eval()

    def _keep_dense(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._dense = output

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out."""
        return (*OUTPUTS, *([MASKS] if has_masks(self.model) else []), *([IMAGE_INDEX] if self.batches else []))

    @property
    def raw_outputs(self) -> tuple[str, ...]:
        """Names of what comes out after `outputs`, for comparisons alone."""
        regions = () if self.one_stage else (*PROPOSALS, *REGIONS)
        return (*DENSE, *regions, *(UNPASTED if self.paste else ()))

    def forward(self, image: Tensor, paste_size: Tensor | None = None) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            image: (3, H, W), or with `batches` (N, 3, H, W); 0..255, float32 or uint8, resized, channels in the order
                of INPUT.FORMAT.
            paste_size: with `paste`, the (height, width) int64 of the image that masks are pasted into.

        Returns:
            boxes (M, 4) XYXY in its pixels, scores (M,) falling in each image, classes (M,) int64; of Mask R-CNN the
            masks' probabilities (M, 1, 28, 28) inside each box; with `batches` the images (M,) int64, rising; then the
            raw values. With `paste`, boxes in pixels of `paste_size`, and masks (M, *paste_size) bool.
        """
        model, images = self.model, image if self.batches else image[None]
        height, width = image.shape[-2:]
        pixels = (images - model.pixel_mean) / model.pixel_std
        pixels = F.pad(pixels, (0, -width % self.divisor, 0, -height % self.divisor))
        size = torch.stack([_as_tensor(height), _as_tensor(width)])
        features = model.backbone(pixels)
        if self.one_stage:
            *values, index = self._one_stage([features[name] for name in model.head_in_features], size)
            return (*values, *([index] if self.batches else []), *map(flat, self._dense))
        boxes, valid = self._proposals(features, size)
        self._regions_raw = []
        *values, index = self._classify(features, boxes, valid, size)
        unpasted: tuple[Tensor, ...] = ()
        if self.paste:
            *values, index, unpasted = self._paste(features, *values, index, size, paste_size)
        elif has_masks(model):
            values.append(self._masks(features, values[0], values[2], index))
        places = rows_of(valid)
        raw = (*map(flat, self._dense), boxes.flatten(0, 1)[places], _image_of(places, valid))
        stages = (torch.cat(parts, dim=1) for parts in zip(*self._regions_raw))
        return (*values, *([index] if self.batches else []), *raw, *stages, *unpasted)

    # detectron2 selects in Python, image by image, and counts regions in Python, which a trace keeps as constants.
    # What follows is its inference on tensors that hold all images, and on flat lists of regions with their images.

    def _proposals(self, features: dict[str, Tensor], size: Any) -> tuple[Tensor, Tensor]:
        """Return the RPN's boxes (N, P, 4), best first, and whether each is one (N, P): images may have fewer."""
        generator = self.model.proposal_generator
        maps = [features[name] for name in generator.in_features]
        levels = []
        for anchors, logits, deltas in zip(generator.anchor_generator(maps), *generator.rpn_head(maps)):
            number, _, height, width = deltas.shape
            logits = logits.permute(0, 2, 3, 1).flatten(1)
            deltas = deltas.reshape(number, -1, 4, height, width).permute(0, 3, 4, 1, 2).flatten(1, -2)
            scores, order = logits.topk(at_most(logits.shape[1], generator.pre_nms_topk[False]), dim=1)
            chosen = anchors.tensor[order].flatten(0, 1)
            boxes = generator.box2box_transform.apply_deltas(pick(deltas, order).flatten(0, 1), chosen)
            boxes = clipped(boxes, size)
            sides = (boxes[:, 2:] - boxes[:, :2]).view(number, -1, 2)
            boxes = boxes.view(number, -1, 4)
            sound = (sides > generator.min_box_size).all(-1) & scores.isfinite()
            # They are sorted, so places do as scores; logits may be negative.
            places = torch.arange(1, scores.shape[1] + 1).flip(0).float() * sound
            kept = survivors(boxes[:, None], places[:, None], generator.nms_thresh, 0.0)[:, 0]
            levels.append((boxes, scores.masked_fill(~kept, -torch.inf)))
        boxes, scores = (torch.cat(values, dim=1) for values in zip(*levels))
        scores, order = scores.topk(at_most(scores.shape[1], generator.post_nms_topk[False]), dim=1)
        return pick(boxes, order), scores > -torch.inf

    def _classify(self, features: dict[str, Tensor], boxes: Tensor, valid: Tensor, size: Any) -> tuple[Tensor, ...]:
        """Return boxes, scores, classes and images of the objects among proposals as of `_proposals`."""
        heads = self.model.roi_heads
        stages = isinstance(heads, CascadeROIHeads)
        predictor = heads.box_predictor[-1] if stages else heads.box_predictor
        places, count = rows_of(valid), valid.shape[0] * valid.shape[1]
        regions = Boxes(boxes.flatten(0, 1)[places])
        found, scores = (self._cascade if stages else self._regions)(features, regions, _image_of(places, valid), size)
        classes, kinds = scores.shape[1] - 1, found.shape[1] // 4
        found = clipped(found.reshape(-1, 4), size).view(-1, kinds, 4)
        # Back to a table by image: of what is no region the scores are 0.
        table = torch.zeros((count, classes)).index_put((places,), scores[:, :-1])
        corners = torch.zeros((count, kinds, 4)).index_put((places,), found)
        table = table.view(*valid.shape, classes).transpose(1, 2)
        corners = corners.view(*valid.shape, kinds, 4).transpose(1, 2)
        kept = survivors(corners, table, predictor.test_nms_thresh, predictor.test_score_thresh)
        return best(corners, table * kept, predictor.test_topk_per_image)

    def _regions(
        self, features: dict[str, Tensor], proposals: Boxes, images: Tensor, size: Any
    ) -> tuple[Tensor, Tensor]:
        """Return boxes (R, 4 or 4 * K) and scores (R, K + 1) of all proposals, which are in `images` (R,)."""
        heads = self.model.roi_heads
        inputs = self._pooled("region_features", features, proposals, images)
        if getattr(heads, "global_context", False):
            number = features[heads.in_features[0]].shape[0]
            height, width = size
            whole = torch.stack([_as_tensor(value).to(inputs) for value in (0, 0, width, height)])
            whole = Boxes(whole[None].expand(number, -1))
            context = self._pooled("region_features", features, whole, torch.arange(number))
            inputs = torch.cat([inputs, context[images]], dim=1)
        predictor = heads.box_predictor
        scores, deltas = predictor(inputs)
        self._regions_raw.append((scores, deltas))
        boxes = predictor.box2box_transform.apply_deltas(deltas, proposals.tensor)
        least_side = getattr(predictor, "least_side", 0.0)
        return boxes, without_small(boxes, class_probabilities(predictor, scores), size, least_side)

    def _cascade(
        self, features: dict[str, Tensor], proposals: Boxes, images: Tensor, size: Any
    ) -> tuple[Tensor, Tensor]:
        """See `_regions`: the boxes of the last stage, the mean scores of all."""
        heads, boxes, scores = self.model.roi_heads, proposals.clone(), []
        heads.box_pooler.images = images
        levels = [features[name] for name in heads.box_in_features]
        for head, predictor in zip(heads.box_head, heads.box_predictor):
            if scores:
                boxes.clip(size)
            logits, deltas = predictor(head(heads.box_pooler(levels, [boxes])))
            self._regions_raw.append((logits, deltas))
            boxes = Boxes(predictor.box2box_transform.apply_deltas(deltas, boxes.tensor))
            scores.append(class_probabilities(predictor, logits))
        return boxes.tensor, sum(scores) * (1.0 / len(scores))

    def _pooled(self, layers: str, features: dict[str, Tensor], boxes: Boxes, images: Tensor) -> Tensor:
        """Return what the heads' `region_features` or `mask_features` give for boxes in `images` (R,)."""
        heads = self.model.roi_heads
        for module in heads.children():
            if isinstance(module, FlatPooler):
                module.images = images
        return getattr(self.layers, layers)(heads, features, [boxes])

    def _one_stage(self, maps: list[Tensor], size: Any) -> tuple[Tensor, ...]:
        """Return boxes, scores, classes and images of the objects."""
        model = self.model
        predictions = model._transpose_dense_predictions(model.head(maps), [model.num_classes, 4])
        levels = [self._decode(*level, size) for level in zip(model.anchor_generator(maps), *predictions)]
        boxes, scores, labels = (torch.cat(values, dim=1) for values in zip(*levels))
        table = scores[:, None] * (labels[:, None] == torch.arange(model.num_classes)[:, None])
        kept = survivors(boxes[:, None], table, model.test_nms_thresh, model.test_score_thresh)
        boxes, scores, classes, images = best(boxes[:, None], table * kept, model.max_detections_per_image)
        # As the postprocessing does it.
        inside = Boxes(clipped(boxes, size))
        inner = inside.nonempty()
        return inside.tensor[inner], scores[inner], classes[inner], images[inner]

    def _decode(self, anchors: Boxes, logits: Tensor, deltas: Tensor, size: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, k, 4), scores and classes (N, k) of the best places of a level, of the rest scores of 0.

        Args:
            logits, deltas: (N, H * W * A, K or 4).
        """
        model = self.model
        scores, order = (
            logits.sigmoid()
            .flatten(1)
            .topk(at_most(logits.shape[1] * logits.shape[2], model.test_topk_candidates), dim=1)
        )
        places = torch.div(order, model.num_classes, rounding_mode="floor")
        chosen = anchors.tensor[places].flatten(0, 1)
        boxes = model.box2box_transform.apply_deltas(pick(deltas, places).flatten(0, 1), chosen)
        if isinstance(model, ClippedRetinaNet):
            boxes = clipped(boxes, size)
            scores = scores * Boxes(boxes).nonempty().view(scores.shape)
        return boxes.view(*scores.shape, 4), scores, order % model.num_classes

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor, images: Tensor) -> Tensor:
        heads = self.model.roi_heads
        logits = heads.mask_head.layers(self._pooled("mask_features", features, Boxes(boxes), images))
        if logits.shape[1] > 1:
            logits = logits[torch.arange(classes.shape[0]), classes][:, None]
        return logits.sigmoid()

    def _paste(
        self,
        features: dict[str, Tensor],
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        images: Tensor,
        *sizes: Tensor,
    ) -> tuple[Any, ...]:
        """Return boxes, scores, classes, masks and images of the objects in the second of two `sizes`; and what the
        masks are made of."""
        there = rescaled(boxes, *sizes)
        # The postprocessing leaves the others out.
        inner = Boxes(there).nonempty()
        there, boxes, scores, classes, images = (value[inner] for value in (there, boxes, scores, classes, images))
        masks = self._masks(features, boxes, classes, images)
        return there, scores, classes, pasted(masks, there, sizes[1]), images, (boxes, masks)


def _image_of(places: Tensor, table: Tensor) -> Tensor:
    """Return the images of places in a table (N, P), counted through."""
    return torch.div(places, table.shape[1], rounding_mode="floor")


def _as_tensor(value: int | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)

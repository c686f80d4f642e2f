"""Anchors and regions of a training step, drawn as detectron2 draws them, with fewer waits for the device.

Where an index is made from a mask, the host waits to learn its length. Here the lengths of all images are read at once.
Draws and losses stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from detectron2.layers import cat
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, Instances, PolygonMasks, pairwise_iou
from detectron2.utils.events import get_event_storage
from detectron2.utils.memory import retry_if_cuda_oom
from fvcore.nn import smooth_l1_loss
from torch import Tensor
from torch.nn import functional as F

from backbone.networks.conv_norm import runs_eagerly

from .proposals import best_boxes, clip, have_size, not_finite, suppressed

Masks = tuple[Tensor, Tensor]  # of the foreground and of the background


def indices(mask: Tensor, number: int) -> Tensor:
    """Return where a vector is True, in order.

    Args:
        number: how often it is True; a device need not be asked.
    """
    if mask.device.type == "cpu":
        return mask.nonzero()[:, 0]
    return mask.byte().argsort(descending=True, stable=True)[:number]


def read_counts(groups: Iterable[Iterable[Tensor]]) -> list[list[int]]:
    """Return how often each mask is True, by group, with one wait for the device; all groups are of one length."""
    return torch.stack([torch.stack([mask.sum() for mask in group]) for group in groups]).tolist()


def draw(masks: Masks, counts: Sequence[int], number: int, share: float) -> tuple[Tensor, Tensor]:
    """Return the indices of the foreground and of the background that are drawn, as detectron2's subsample_labels.

    Args:
        counts: how often the masks are True.
        number: drawn at most.
        share: of the foreground at most.
    """
    foreground = min(counts[0], int(number * share))
    wanted = (foreground, min(counts[1], number - foreground))
    first, second = (
        indices(mask, count)[torch.randperm(count, device=mask.device)[:some]]
        for mask, count, some in zip(masks, counts, wanted)
    )
    return first, second


def box_deltas(transform: Box2BoxTransform, sources: Tensor, targets: Tensor) -> Tensor:
    """Return the deltas (R, 4) from boxes to boxes, as the transform does, which waits to check that boxes have a size.

    Those that come here have one: anchors, and proposals that are not empty.
    """
    (x, y, width, height), (to_x, to_y, to_width, to_height) = map(_centred, (sources, targets))
    of_x, of_y, of_width, of_height = transform.weights
    shifts = of_x * (to_x - x) / width, of_y * (to_y - y) / height
    scales = of_width * torch.log(to_width / width), of_height * torch.log(to_height / height)
    return torch.stack((*shifts, *scales), dim=1)


def _centred(boxes: Tensor) -> tuple[Tensor, ...]:
    left, top, right, bottom = boxes.unbind(1)
    width, height = right - left, bottom - top
    return left + 0.5 * width, top + 0.5 * height, width, height


class QuietMatcher(Matcher):
    """detectron2's Matcher with masks in place of indices."""

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best truth and the label of each of N boxes by their overlaps (M, N). See detectron2's."""
        if match_quality_matrix.numel() == 0:
            return super().__call__(match_quality_matrix)
        best, matches = match_quality_matrix.max(dim=0)
        labels = torch.ones_like(matches, dtype=torch.int8)
        for label, low, high in zip(self.labels, self.thresholds[:-1], self.thresholds[1:]):
            labels.masked_fill_((best >= low) & (best < high), label)
        if self.allow_low_quality_matches:
            highest = match_quality_matrix.amax(dim=1, keepdim=True)
            labels.masked_fill_((match_quality_matrix == highest).any(dim=0), 1)
        return matches, labels


class DrawnLabels(list):
    """Labels of each image's anchors.

    Attributes:
        drawn: of the foreground and of the background, in all images.
    """

    drawn: tuple[int, int]


class SparingRPN(RPN):
    """detectron2's RPN; it waits once for all labels, once for all proposals, and for each NMS."""

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See detectron2's."""
        every, found = Boxes.cat(anchors), []
        for image in gt_instances:
            overlaps = retry_if_cuda_oom(pairwise_iou)(image.gt_boxes, every)
            matches, labels = retry_if_cuda_oom(self.anchor_matcher)(overlaps)
            labels = labels.to(image.gt_boxes.device)
            if self.anchor_boundary_thresh >= 0:
                labels.masked_fill_(~every.inside_box(image.image_size, self.anchor_boundary_thresh), -1)
            found.append((matches, labels))
        masks = [((labels != -1) & (labels != 0), labels == 0) for _, labels in found]
        result, boxes, drawn = DrawnLabels(), [], []
        for image, (matches, labels), pair, counts in zip(gt_instances, found, masks, read_counts(masks)):
            chosen = draw(pair, counts, self.batch_size_per_image, self.positive_fraction)
            result.append(labels.fill_(-1).scatter_(0, chosen[0], 1).scatter_(0, chosen[1], 0))
            boxes.append(image.gt_boxes[matches].tensor if len(image) else torch.zeros_like(every.tensor))
            drawn.append([len(part) for part in chosen])
        result.drawn = tuple(map(sum, zip(*drawn)))
        return result, boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """See detectron2's; logits (N, A), deltas (N, A, 4) by level, labels (A,) and boxes (A, 4) by image."""
        if self.box_reg_loss_type != "smooth_l1" or not isinstance(gt_labels, DrawnLabels):
            return super().losses(anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes)
        images, (foreground, background) = len(gt_labels), gt_labels.drawn
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", foreground / images)
        storage.put_scalar("rpn/num_neg_anchors", background / images)
        labels, every = torch.cat(gt_labels), Boxes.cat(anchors).tensor
        positive, valid = indices(labels == 1, foreground), indices(labels >= 0, foreground + background)
        wanted = box_deltas(self.box2box_transform, every[positive % len(every)], torch.cat(gt_boxes)[positive])
        deltas = cat(pred_anchor_deltas, dim=1).flatten(0, 1)[positive]
        logits = cat(pred_objectness_logits, dim=1).flatten()[valid]
        sums = {
            "loss_rpn_cls": F.binary_cross_entropy_with_logits(logits, labels[valid].float(), reduction="sum"),
            "loss_rpn_loc": smooth_l1_loss(deltas, wanted, beta=self.smooth_l1_beta, reduction="sum"),
        }
        number = self.batch_size_per_image * images
        return {name: value / number * self.loss_weight.get(name, 1.0) for name, value in sums.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """See detectron2's.

        Raises:
            FloatingPointError: in training a box or a score is not finite.
        """
        inputs = anchors, pred_objectness_logits, pred_anchor_deltas
        if not runs_eagerly():
            return super().predict_proposals(*inputs, image_sizes)
        boxes, scores, levels = best_boxes(self.box2box_transform, *inputs, self.pre_nms_topk[self.training])
        broken = not_finite(boxes, scores)
        cut = [clip(of_image, size) for of_image, size in zip(boxes, image_sizes)]
        full = [have_size(of_image, self.min_box_size) for of_image in cut]
        counts = read_counts(zip(broken, full))
        if any(wrong for wrong, _ in counts):
            if self.training:
                raise FloatingPointError("a predicted box or score of the RPN is not finite")
            return super().predict_proposals(*inputs, image_sizes)
        found, limits = [], {"overlap": self.nms_thresh, "number": self.post_nms_topk[self.training]}
        for of_image, scored, mask, (_, number), size in zip(cut, scores, full, counts, image_sizes):
            level = levels
            if number < len(mask):
                chosen = indices(mask, number)
                of_image, scored, level = of_image[chosen], scored[chosen], level[chosen]
            found.append(suppressed(of_image, scored, level, size, **limits))
        return found


class SparingSampling:
    """Draws the regions of all images with one wait for the device. To stand before detectron2's ROIHeads.

    The foreground stands first among an image's regions; `drawn_foreground` tells how many there are.
    """

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """See detectron2's."""
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        matched, classes = [], []
        for regions, truth in zip(proposals, targets):
            matches, labels = self.proposal_matcher(pairwise_iou(truth.gt_boxes, regions.proposal_boxes))
            matched.append(matches)
            if len(truth):
                named = truth.gt_classes[matches]
                classes.append(named.masked_fill_(labels == 0, self.num_classes).masked_fill_(labels == -1, -1))
            else:
                classes.append(torch.full_like(matches, self.num_classes))
        masks = [((named != -1) & (named != self.num_classes), named == self.num_classes) for named in classes]
        found, rows = [], []
        for regions, named, matches, pair, counts in zip(proposals, classes, matched, masks, read_counts(masks)):
            drawn = draw(pair, counts, self.batch_size_per_image, self.positive_fraction)
            chosen = torch.cat(drawn)
            found.append(regions[chosen])
            found[-1].gt_classes = named[chosen]
            found[-1]._drawn_foreground = len(drawn[0])
            rows.append(matches[chosen])
        _add_truth(found, targets, rows)
        storage, images = get_event_storage(), len(found)
        foreground = sum(map(drawn_foreground, found))
        storage.put_scalar("roi_head/num_fg_samples", foreground / images)
        storage.put_scalar("roi_head/num_bg_samples", (sum(map(len, found)) - foreground) / images)
        return found


def drawn_foreground(regions: Instances) -> int | None:
    """Return how many of an image's regions, the first ones, are foreground; None where SparingSampling drew none."""
    return getattr(regions, "_drawn_foreground", None)


def foreground_of(proposals: list[Instances]) -> list[Instances] | None:
    """Return the foreground among the regions that SparingSampling drew; None where it did not draw them."""
    numbers = [drawn_foreground(image) for image in proposals]
    return None if None in numbers else [image[:number] for image, number in zip(proposals, numbers)]


def _add_truth(found: list[Instances], targets: list[Instances], rows: list[Tensor]) -> None:
    """Give the drawn regions the fields gt_* of their objects.

    Args:
        rows: of each image, the objects of its regions.
    """
    polygons = any(isinstance(value, PolygonMasks) for truth in targets for value in truth.get_fields().values())
    # Polygons lie on the host.
    on_host = torch.cat(rows).tolist() if polygons else []
    start = 0
    for regions, truth, of_image in zip(found, targets, rows):
        part = on_host[start : start + len(of_image)]
        start += len(of_image)
        for name, value in truth.get_fields().items() if len(truth) else ():
            if name.startswith("gt_") and not regions.has(name):
                regions.set(name, value[part if isinstance(value, PolygonMasks) else of_image])

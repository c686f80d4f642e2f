"""Every method of Appendix B on small detectors against slow plain references."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, Instances
from small_detectors import detector, level_out, parts, plain_regions, sample_of, settings_of
from torch import Tensor, nn

from detection.modeling.testing import Methods, Network, Pipeline, methods_of, reader
from detection.modeling.testing.reader import Reader

HEIGHT, WIDTH = 96, 144
SIDES = (64, 96, 128)
CONTEXT = {"MODEL__ROI_BOX_HEAD__GLOBAL_CONTEXT": True}


def sample_with_views() -> dict:
    sample = sample_of(HEIGHT, WIDTH, larger=1.5)
    views = {side: sample_of(side, side * 3 // 2)["image"] for side in SIDES}
    return {**sample, "views": {**views, HEIGHT: sample["image"]}}


SAMPLE = sample_with_views()


def ready(kind: str, seed: int = 0, **changes: object) -> tuple[nn.Module, Methods]:
    settings = settings_of(kind, **changes)
    return level_out(detector(settings, seed), SAMPLE), methods_of(settings)


@pytest.fixture(scope="module", params=["c4", "fpn"])
def plain(request) -> tuple[nn.Module, Methods]:
    return ready(request.param)


@pytest.fixture(scope="module", params=["c4", "fpn"])
def contextual(request) -> tuple[nn.Module, Methods]:
    return ready(request.param, **CONTEXT)


def run(model: nn.Module | list[nn.Module], methods: Methods) -> Instances:
    networks = model if isinstance(model, list) else [model]
    return Pipeline([Network(network) for network in networks], methods)([SAMPLE])[0]["instances"]


def same(ours: Instances, theirs: Instances, *, tolerance: float = 1e-3) -> None:
    """Check that detections are the same up to rounding, and that there are some."""
    assert len(ours) == len(theirs) > 2
    assert ours.image_size == theirs.image_size == (round(HEIGHT * 1.5), round(WIDTH * 1.5))
    assert ours.pred_classes.tolist() == theirs.pred_classes.tolist()
    assert torch.allclose(ours.scores, theirs.scores, atol=1e-5)
    assert torch.allclose(ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=tolerance)


def decode(model: nn.Module, regions: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities (R, K + 1) and boxes (R, K, 4), a region and a class at a time."""
    logits, deltas = model.roi_heads.box_predictor(regions)
    weights = model.roi_heads.box_predictor.box2box_transform.weights
    limit = torch.tensor(1000.0 / 16).log().item()
    every = []
    for box, delta in zip(boxes.tolist(), deltas.view(len(boxes), -1, 4).tolist()):
        width, height = box[2] - box[0], box[3] - box[1]
        rows = []
        for dx, dy, dw, dh in delta:
            x = box[0] + width / 2 + dx / weights[0] * width
            y = box[1] + height / 2 + dy / weights[1] * height
            w = width * torch.tensor(min(dw / weights[2], limit)).exp().item()
            h = height * torch.tensor(min(dh / weights[3], limit)).exp().item()
            rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        every.append(rows)
    return logits.softmax(1), torch.tensor(every)


def mirror(boxes: Tensor) -> Tensor:
    return torch.stack([WIDTH - boxes[..., 2], boxes[..., 1], WIDTH - boxes[..., 0], boxes[..., 3]], dim=-1)


def score_plainly(model: nn.Module, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    _, features, _ = parts(model, image)
    regions = plain_regions(model, features, boxes)
    if getattr(model.roi_heads, "global_context", False):
        whole = torch.tensor([[0.0, 0.0, image.shape[2], image.shape[1]]])
        context = plain_regions(model, features, whole)
        regions = torch.cat([regions, context.repeat(len(regions), 1)], dim=1)
    return decode(model, regions, boxes)


def finish(scores: Tensor, boxes: Tensor, methods: Methods, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Instances:
    """Select by detectron2's own function, and scale to the file."""
    flat = boxes.reshape(len(boxes), -1).clone()
    found, _ = fast_rcnn_inference_single_image(flat, scores, size, methods.score, methods.nms, methods.limit)
    result = Instances((round(HEIGHT * 1.5), round(WIDTH * 1.5)))
    result.pred_boxes = Boxes(found.pred_boxes.tensor * (HEIGHT * 1.5 / size[0]))
    result.scores, result.pred_classes = found.scores, found.pred_classes
    return result[result.pred_boxes.nonempty()]


DETECTORS = [(kind, changes) for kind in ("c4", "fpn", "mask", "vgg") for changes in ({}, CONTEXT)]


@pytest.mark.parametrize(("kind", "context"), DETECTORS)
@torch.no_grad()
def test_without_a_method_the_pipeline_is_the_model(kind, context):
    model, methods = ready(kind, **context)
    assert methods.names == []
    expected, found = model([SAMPLE])[0]["instances"], run(model, methods)
    same(found, expected, tolerance=0)
    assert torch.equal(found.scores, expected.scores)
    if kind == "mask":
        assert found.pred_masks.any()
        assert torch.equal(found.pred_masks, expected.pred_masks)


@torch.no_grad()
def test_box_refinement(plain):
    model, methods = plain
    methods = replace(methods, refine=True, nms=0.3)
    boxes = parts(model, SAMPLE["image"])[2]
    first = score_plainly(model, SAMPLE["image"], boxes)
    again = []
    for scores, candidates in zip(*first):
        x0, y0, x1, y1 = candidates[scores[:-1].argmax()].tolist()
        again.append([max(x0, 0), max(y0, 0), min(x1, WIDTH), min(y1, HEIGHT)])
    second = score_plainly(model, SAMPLE["image"], torch.tensor(again))
    joined = [torch.cat(pair) for pair in zip(first, second)]
    assert len(joined[0]) == 2 * len(boxes)
    found = run(model, methods)
    same(found, finish(*joined, methods))
    assert found.scores.tolist() != finish(*first, methods).scores.tolist()


@torch.no_grad()
def test_flip_averages_both_images_over_the_proposals_of_both(plain):
    model, methods = plain
    turned = SAMPLE["image"].flip(-1)
    boxes = torch.cat([parts(model, SAMPLE["image"])[2], mirror(parts(model, turned)[2])])
    scores, regressed = score_plainly(model, SAMPLE["image"], boxes)
    turned_scores, turned_boxes = score_plainly(model, turned, mirror(boxes))
    expected = finish((scores + turned_scores) / 2, (regressed + mirror(turned_boxes)) / 2, methods)
    same(run(model, replace(methods, flip=True)), expected)


@torch.no_grad()
def test_a_mirrored_image_is_found_mirrored(plain):
    model, methods = plain
    methods = replace(methods, flip=True)
    turned = {**SAMPLE, "image": SAMPLE["image"].flip(-1)}
    one = run(model, methods)
    other = Pipeline([Network(model)], methods)([turned])[0]["instances"]
    boxes = other.pred_boxes.tensor
    back = torch.stack([WIDTH * 1.5 - boxes[:, 2], boxes[:, 1], WIDTH * 1.5 - boxes[:, 0], boxes[:, 3]], dim=1)
    assert torch.allclose(one.scores, other.scores, atol=1e-5)
    assert torch.allclose(one.pred_boxes.tensor, back, atol=1e-2)


def smaller_area(monkeypatch, boxes: Tensor) -> float:
    """Put such an area in the place of 224 x 224 that half the boxes take the first two scales, half the last two."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ends = ((SIDES[0] / HEIGHT) ** 2 + (SIDES[2] / HEIGHT) ** 2) / 2
    area = areas.sort().values[len(areas) // 2 - 1 :][:2].mean().item() * ends
    monkeypatch.setattr(reader, "CANONICAL_AREA", area)
    return area


def features_by_maxout(model: nn.Module, boxes: Tensor, canonical: float) -> Tensor:
    """Pool each box at the two scales nearest to the canonical area, and take the maximum of the two features."""
    merged, used = [], set()
    for box in boxes:
        candidates = []
        for side in SIDES:
            image = SAMPLE["views"][side]
            scaled = box * side / HEIGHT
            area = ((scaled[2] - scaled[0]) * (scaled[3] - scaled[1])).item()
            candidates.append((abs(area - canonical), side, image, scaled))
        two = sorted(candidates, key=lambda entry: entry[:2])[:2]
        used |= {tuple(side for _, side, _, _ in two)}
        pooled = [plain_regions(model, parts(model, image)[1], scaled[None])[0] for _, _, image, scaled in two]
        merged.append([max(pair) for pair in zip(*(feature.tolist() for feature in pooled))])
    # Not all regions take the same two scales, or the choice would not be tested.
    assert len(used) > 1 or len(boxes) == 1
    return torch.tensor(merged)


@torch.no_grad()
def test_multi_scale_testing_is_maxout_of_two_scales(plain, monkeypatch):
    model, methods = plain
    boxes = parts(model, SAMPLE["image"])[2]
    regions = features_by_maxout(model, boxes, smaller_area(monkeypatch, boxes))
    expected = finish(*decode(model, regions, boxes), methods)
    same(run(model, replace(methods, sides=SIDES)), expected, tolerance=1e-2)


@torch.no_grad()
def test_context_over_several_scales_is_a_region_like_the_others(contextual, monkeypatch):
    model, methods = contextual
    boxes = parts(model, SAMPLE["image"])[2]
    area = smaller_area(monkeypatch, boxes)
    context = features_by_maxout(model, torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]), area)
    regions = torch.cat([features_by_maxout(model, boxes, area), context.repeat(len(boxes), 1)], dim=1)
    expected = finish(*decode(model, regions, boxes), methods)
    same(run(model, replace(methods, sides=SIDES)), expected, tolerance=1e-2)


@torch.no_grad()
def test_regions_of_every_size_find_their_scales(plain):
    """A large image, so that regions of 20 to 900 pixels spread over all scales."""
    model, _ = plain
    pyramid = [torch.zeros(3, side, side, dtype=torch.uint8) for side in (100, 300, 900)]
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in (10.0, 40.0, 90.0, 150.0, 280.0)])
    found = Reader(Network(model), pyramid[1], pyramid, flipped=False).score(boxes)
    assert found.scores.shape == (5, 4)
    assert torch.isfinite(found.boxes).all()


@torch.no_grad()
def test_ensemble_averages_over_the_union_of_proposals(plain):
    model, methods = plain
    other, _ = ready("fpn", seed=5)
    networks = [model, other]
    boxes = torch.cat([parts(network, SAMPLE["image"])[2] for network in networks])
    scored = [score_plainly(network, SAMPLE["image"], boxes) for network in networks]
    scores, regressed = (sum(part) / 2 for part in zip(*scored))
    found = run(networks, replace(methods, networks=2))
    same(found, finish(scores, regressed, methods))


@torch.no_grad()
def test_a_network_of_the_other_channel_order_sees_its_own(plain):
    model, methods = plain
    turned = {**SAMPLE, "image": SAMPLE["image"].flip(0)}
    found = Pipeline([Network(model, reverse_channels=True)], methods)([turned])[0]["instances"]
    assert torch.equal(found.scores, run(model, methods).scores)


@torch.no_grad()
def test_union_joins_the_detections_of_all_sizes_and_flips(plain):
    model, methods = plain
    methods = replace(methods, union_sides=(96, 128), union_flip=True)
    every = []
    for side in (96, 128):
        for turned in (False, True):
            image = SAMPLE["views"][side]
            image = image.flip(-1) if turned else image
            scores, boxes = score_plainly(model, image, parts(model, image)[2])
            boxes = boxes * HEIGHT / side
            every.append((scores, mirror(boxes) if turned else boxes))
    scores, boxes = (torch.cat(part) for part in zip(*every))
    # Which of equal scores comes first is left open.
    same(run(model, methods), finish(scores, boxes, methods), tolerance=1e-2)


@torch.no_grad()
def test_all_methods_together(contextual):
    model, methods = contextual
    methods = replace(methods, refine=True, nms=0.3, vote=0.5, sides=SIDES, flip=True, networks=2, soft="gaussian")
    assert len(methods.names) == 6
    found = run([model, model], methods)
    assert 0 < len(found) <= methods.limit
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    height, width = found.image_size
    boxes = found.pred_boxes.tensor
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= width
    assert boxes[:, 3].max() <= height


@torch.no_grad()
def test_masks_come_on_the_final_boxes():
    model, methods = ready("mask")
    found = run(model, replace(methods, refine=True, vote=0.5, flip=True))
    assert found.pred_masks.shape == (len(found), round(HEIGHT * 1.5), round(WIDTH * 1.5))
    assert len(found) > 0

"""NMS, Soft-NMS, box voting and the choice of scales against slow plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from torch import Tensor

from detection.modeling.testing import Methods
from detection.modeling.testing.predictions import RegionScores
from detection.modeling.testing.reader import nearest_scales
from detection.modeling.testing.selection import select, soft_nms, vote

SIZE = (90, 120)


def random_predictions(regions: int, classes: int, seed: int) -> RegionScores:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(regions, classes, 2, generator=generator) * 60 + 20
    sides = torch.rand(regions, classes, 2, generator=generator) * 50 + 5
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)
    return RegionScores((torch.randn(regions, classes + 1, generator=generator) * 2).softmax(1), boxes)


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


def slow_soft_nms(boxes: Tensor, scores: Tensor, classes: Tensor, methods: Methods) -> list[tuple[int, float]]:
    """Algorithm of the Soft-NMS paper, a class at a time."""
    found = []
    for label in sorted(set(classes.tolist())):
        rest = {i: scores[i].item() for i in range(len(boxes)) if classes[i] == label}
        while rest:
            best = max(rest, key=rest.get)
            score = rest.pop(best)
            if score < methods.least_score:
                break
            found.append((best, score))
            for other in rest:
                overlap = iou(boxes[best].tolist(), boxes[other].tolist())
                if methods.soft == "gaussian":
                    rest[other] *= math.exp(-(overlap**2) / methods.sigma)
                elif overlap > methods.nms:
                    rest[other] *= 1 - overlap
    return sorted(found, key=lambda pair: -pair[1])


@pytest.mark.parametrize("soft", ["gaussian", "linear"])
@pytest.mark.parametrize("least", [0.001, 0.2])
def test_soft_nms_equals_loops(soft, least):
    methods = Methods(score=0.0, nms=0.3, limit=-1, soft=soft, sigma=0.4, least_score=least)
    generator = torch.Generator().manual_seed(1)
    boxes = random_predictions(40, 1, 3).boxes[:, 0]
    scores, classes = torch.rand(40, generator=generator), torch.randint(4, (40,), generator=generator) * 3
    expected = slow_soft_nms(boxes, scores, classes, methods)
    kept, values = soft_nms(boxes, scores, classes, methods)
    assert kept.tolist() == [index for index, _ in expected]
    assert values.tolist() == pytest.approx([value for _, value in expected], rel=1e-4)
    assert len(set(kept.tolist())) == len(kept) > 4


def test_soft_nms_takes_no_more_than_the_limit_of_a_class():
    methods = Methods(score=0.0, nms=0.3, limit=5, soft="gaussian")
    found = random_predictions(30, 2, 0)
    chosen = select(found, SIZE, methods)
    unlimited = select(found, SIZE, Methods(score=0.0, nms=0.3, limit=-1, soft="gaussian"))
    assert len(chosen) == 5 < len(unlimited)
    assert torch.equal(chosen.scores, unlimited.scores[:5])
    assert torch.equal(chosen.pred_boxes.tensor, unlimited.pred_boxes.tensor[:5])


def test_plain_selection_equals_detectron2_to_the_bit():
    found = random_predictions(50, 4, 7)
    found.boxes[3, 1, 2] = torch.inf
    found.scores[5, 0] = torch.nan
    ours = select(found, SIZE, Methods(score=0.1, nms=0.4, limit=20))
    theirs, _ = fast_rcnn_inference_single_image(found.boxes.reshape(50, -1), found.scores, SIZE, 0.1, 0.4, 20)
    assert len(ours) == 20
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.pred_classes, theirs.pred_classes)


def test_box_voting_equals_loops():
    found = random_predictions(60, 3, 2)
    likely = found.scores[:, :-1] > 0.2
    boxes, scores, classes = found.boxes[likely], found.scores[:, :-1][likely], likely.nonzero()[:, 1]
    kept = torch.arange(0, len(boxes), 4)
    voted = vote(boxes[kept], classes[kept], boxes, scores, classes, 0.5)
    voters = []
    for row, index in enumerate(kept.tolist()):
        total, mean = 0.0, [0.0] * 4
        voters.append(0)
        for box, score, label in zip(boxes.tolist(), scores.tolist(), classes.tolist()):
            if label == classes[index] and iou(boxes[index].tolist(), box) >= 0.5:
                total += score
                mean = [value + score * side for value, side in zip(mean, box)]
                voters[-1] += 1
        assert voted[row].tolist() == pytest.approx([value / total for value in mean], rel=1e-4)
    assert max(voters) > 1
    assert (voted - boxes[kept]).abs().max() > 1


def test_voting_moves_boxes_and_nothing_else():
    found = random_predictions(60, 3, 2)
    plain, voted = (select(found, SIZE, Methods(score=0.1, nms=0.3, limit=100, vote=iou)) for iou in (0.0, 0.5))
    assert torch.equal(plain.scores, voted.scores)
    assert torch.equal(plain.pred_classes, voted.pred_classes)
    assert not torch.equal(plain.pred_boxes.tensor, voted.pred_boxes.tensor)


def test_a_box_without_area_votes_for_itself():
    empty = torch.tensor([[5.0, 5.0, 5.0, 9.0]])
    others = torch.tensor([[5.0, 5.0, 5.0, 9.0], [0.0, 0.0, 10.0, 10.0]])
    zeros = torch.zeros(2, dtype=torch.int64)
    assert torch.equal(vote(empty, zeros[:1], others, torch.tensor([0.9, 0.8]), zeros, 0.5), empty)


@pytest.mark.parametrize("methods", [{}, {"soft": "gaussian"}, {"soft": "linear", "vote": 0.5}, {"vote": 0.5}])
@pytest.mark.parametrize("regions", [0, 5])
def test_nothing_to_select(methods, regions):
    found = random_predictions(regions, 3, 0)
    chosen = select(found, SIZE, Methods(score=1.0, nms=0.5, limit=100, **methods))
    assert len(chosen) == 0
    assert chosen.pred_boxes.tensor.shape == (0, 4)


def test_the_two_scales_are_adjacent_and_nearest():
    sides = torch.tensor([200.0, 400.0, 600.0, 800.0, 1000.0])
    boxes = torch.rand(300, 1, generator=torch.Generator().manual_seed(0)) * 600 + 5
    areas = (boxes * sides / 600) ** 2
    chosen = nearest_scales(areas)
    for row, pair in zip(areas.tolist(), chosen.tolist()):
        # The paper: two adjacent scales; brute force over the four pairs.
        distance = [abs(area - 224 * 224) for area in row]
        best = min(range(4), key=lambda i: distance[i] + distance[i + 1])
        assert sorted(pair) == [best, best + 1]
    assert {tuple(sorted(pair)) for pair in chosen.tolist()} == {(0, 1), (1, 2), (2, 3), (3, 4)}

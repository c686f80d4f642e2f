"""Boxes, anchors and training targets against torchvision, plain loops and mirror images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from backbone.localization import default_config
from backbone.localization.boxes import decode, encode, ious, make_anchors, sample_anchors
from backbone.localization.data import BoxedImages
from backbone.localization.networks import build
from backbone.localization.samples import Crops, Regions, warp


def random_boxes(number: int, seed: int = 0, side: float = 100.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    low = random.uniform(0, side * 0.8, (number, 2))
    return np.concatenate([low, low + random.uniform(2, side * 0.6, (number, 2))], axis=1).astype(np.float32)


def config(**changes):
    node = default_config()
    pairs = {"MODEL__NAME": "resnet18", "MODEL__NORM": "bn", "MODEL__DEVICE": "cpu", "INPUT__TRAIN_SIZE": 64}
    pairs |= {"INPUT__SHORTER_SIDE": (64, 80), **changes}
    node.merge_from_list([part for key, value in pairs.items() for part in (key.replace("__", "."), value)])
    return node


def test_overlaps_and_regression_are_torchvisions():
    a, b = random_boxes(30), random_boxes(20, 1)
    assert ious(a, b) == pytest.approx(box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy(), abs=1e-5)
    assert (ious(np.zeros((1, 4)), np.zeros((1, 4))) == 0).all()
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    pair = torch.from_numpy(a[:20]), torch.from_numpy(b)
    deltas = encode(*pair)
    assert torch.allclose(deltas, coder.encode_single(pair[1], pair[0]), atol=1e-5)
    assert torch.allclose(decode(pair[0], deltas), pair[1], atol=1e-3)
    wild = torch.full((20, 4), 50.0)
    assert decode(pair[0], wild).isfinite().all()


def test_anchors_are_torchvisions_but_for_their_centres():
    sizes, ratios = (32, 64), (0.5, 1.0, 2.0)
    found = make_anchors(3, 5, 32, sizes, ratios)
    generator = AnchorGenerator((sizes,), (ratios,))
    theirs = generator(ImageList(torch.zeros(1, 3, 96, 160), [(96, 160)]), [torch.zeros(1, 1, 3, 5)])[0]
    # Theirs are rounded, stand on the cells' corners, and have the ratio outermost and the size innermost.
    theirs = theirs.view(3, 5, 3, 2, 4).permute(3, 2, 0, 1, 4).reshape(6, 3, 5, 4).numpy() + 16
    assert found.shape == (6, 3, 5, 4) and np.abs(found - theirs).max() <= 0.5
    sides = found[..., 2:] - found[..., :2]
    assert np.allclose(sides.prod(-1).reshape(2, -1), np.array([[32**2], [64**2]]), rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_anchors_are_sampled_half_and_half(seed):
    anchors = make_anchors(7, 7, 32, (64, 128), (0.5, 1.0, 2.0)).reshape(-1, 4)
    boxes = random_boxes(1 + seed % 2, seed, 220)
    places, positive, owners = sample_anchors(anchors, boxes, np.random.default_rng(seed), 8)
    assert len(places) == len(set(places.tolist())) == 8
    overlap = box_iou(torch.from_numpy(anchors), torch.from_numpy(boxes)).numpy()
    allowed = {
        place
        for place, row in enumerate(overlap)
        if row.max() >= 0.7 or any(row[box] == overlap[:, box].max() > 0 for box in range(len(boxes)))
    }
    assert positive.sum() == min(4, len(allowed)) and set(places[positive].tolist()) <= allowed
    for place, is_positive, owner in zip(places, positive, owners):
        if is_positive:
            assert owner.tolist() == boxes[overlap[place].argmax()].tolist()
        else:
            assert overlap[place].max() < 0.3 and place not in allowed and not owner.any()
    # Without a box in the crop all are negative; where each anchor is positive, all are.
    assert not sample_anchors(anchors, boxes[:0], np.random.default_rng(0), 8)[1].any()
    assert sample_anchors(anchors[:3], anchors[:3], np.random.default_rng(0), 8)[1].all()


class OneImage(BoxedImages):
    """A set of one image in memory."""

    def __init__(self, image: np.ndarray, boxes: list) -> None:
        super().__init__("one", ["a", "b"], np.array([1]), None, ["x"], [boxes])
        self.image = image

    def content(self, index: int) -> np.ndarray:
        return np.frombuffer(cv2.imencode(".png", self.image[:, :, ::-1])[1].tobytes(), dtype=np.uint8)


def scene() -> OneImage:
    """A gray image with a white box; the samples below find it where it is white."""
    image = np.full((100, 140, 3), 60, dtype=np.uint8)
    image[20:80, 40:110] = 255
    return OneImage(image, [(40, 20, 110, 80)])


@pytest.mark.parametrize("flip", [False, True])
def test_targets_lie_on_what_is_seen(flip):
    images = scene()
    samples = Crops(images, config(INPUT__FLIP=flip))
    for position in range(12):
        (view, label, places, positive, references, boxes), bad = samples[position, 0]
        assert view.shape == (64, 64, 3) and label == 1 and not bad and positive.any()
        assert (references == samples.anchors[places]).all()
        white = view[:, :, 0] > 200
        rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(boxes[positive] - expected).max() <= 1.5
    again = Crops(images, config(INPUT__FLIP=flip))[11, 0][0]
    assert all((np.asarray(one) == np.asarray(other)).all() for one, other in zip(samples[11, 0][0], again))


def test_regions_are_warped_and_regressed_to_the_object():
    images = scene()
    proposals = np.array([[[30, 10, 120, 90], [0, 0, 30, 30], [0, 0, 0, 0]]], dtype=np.float32)
    samples = Regions(images, config(), proposals, np.array([2]))
    seen = set()
    for position in range(24):
        (view, _, places, positive, references, boxes), _ = samples[position, 0]
        assert view.shape == (64, 64, 3) and places.tolist() == [0]
        seen.add((tuple(references[0].tolist()), bool(positive[0])))
        if not positive[0]:
            continue
        # Where the object lies in the region, as shares of its sides, is where the view is white.
        x0, y0, x1, y1 = references[0]
        share = (boxes[0] - (x0, y0, x0, y0)) / (x1 - x0, y1 - y0, x1 - x0, y1 - y0)
        columns = np.flatnonzero((view[:, :, 0] > 200).any(0))
        assert [columns[0] / 64, (columns[-1] + 1) / 64] == pytest.approx(share[[0, 2]], abs=0.04)
    assert seen == {((30, 10, 120, 90), True), ((0, 0, 30, 30), False)}
    assert (warp(images.image, proposals[0, 0], 64) == warp(images.image, proposals[0, 0] + 0.4, 64)).all()


@pytest.mark.parametrize("kind", ["rpn", "rcnn"])
def test_outputs_of_wanted_classes_are_those_of_whole_layers(kind):
    torch.manual_seed(0)
    settings = config(MODEL__KIND=kind, MODEL__ANCHOR_SIZES=(32, 64), MODEL__ANCHOR_RATIOS=(0.5, 1.0))
    network = build(settings, 7).eval()
    for layer in (network.score, network.box):
        torch.nn.init.normal_(layer.bias)
    anchors = 4 if kind == "rpn" else 1
    images, classes = torch.randn(2, 3, 64, 96), torch.tensor([[3, 0, 6], [5, 5, 1]])
    with torch.no_grad():
        scores, boxes = network(images, classes)
        features = network.backbone(images)["res5"]
        features = F.adaptive_avg_pool2d(features, 1) if kind == "rcnn" else features
        # 1,000 binary classifiers and 4 x 1,000 regressors: here 7 and 28, at each anchor.
        every, moves = network.score(features), network.box(features)
    assert every.shape[1] == 7 * anchors and moves.shape[1] == 28 * anchors
    every, moves = every.unflatten(1, (7, anchors)), moves.unflatten(1, (7, anchors, 4))
    for row in range(2):
        for place, label in enumerate(classes[row].tolist()):
            assert torch.allclose(scores[row, place], every[row, label], atol=1e-4)
            assert torch.allclose(boxes[row, place], moves[row, label].permute(0, 2, 3, 1), atol=1e-4)

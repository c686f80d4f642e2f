"""Losses against their definitions, pixel by pixel, and against torchvision's; class weights from counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from backbone.common.errors import ConfigError
from backbone.engine.class_weights import balancing, check_class_weights
from backbone.engine.loading import Batch
from backbone.segmentation import default_config, load_config
from backbone.segmentation.evaluation import VOID
from backbone.segmentation.losses import PixelLoss, dice_loss
from backbone.segmentation.networks import build
from backbone.segmentation.task import SegmentationTask

WEIGHTS = [0.5, 2.0, 1.0, 0.0]


def scene(seed: int = 0, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes - 1, (2, 5, 6), generator=generator)
    labels[:, 0, :3] = VOID
    return 3 * torch.randn(2, classes, 5, 6, generator=generator), labels


def by_hand(scores, labels, weights, gamma, dice):
    total = weight = 0.0
    both, found, true = ([0.0] * scores.shape[1] for _ in range(3))
    for image, row, column in np.ndindex(*labels.shape):
        label = int(labels[image, row, column])
        if label == VOID:
            continue
        exponents = [math.exp(value) for value in scores[image, :, row, column].tolist()]
        shares = [value / sum(exponents) for value in exponents]
        total += weights[label] * (1 - shares[label]) ** gamma * -math.log(shares[label])
        weight += weights[label]
        both[label] += shares[label]
        true[label] += 1
        found = [a + b for a, b in zip(found, shares)]
    lost = [1 - 2 * both[c] / (found[c] + true[c]) for c in range(len(true)) if true[c]]
    return total / weight + dice * sum(lost) / len(lost)


@pytest.mark.parametrize("weights", [[1.0] * 4, WEIGHTS])
@pytest.mark.parametrize(("gamma", "dice"), [(0.0, 0.0), (2.0, 0.0), (0.5, 0.0), (0.0, 1.0), (2.0, 0.7)])
def test_a_loss_is_its_definition(weights, gamma, dice):
    scores, labels = scene()
    loss = PixelLoss(torch.tensor(weights), gamma=gamma, dice=dice)
    assert loss(scores, labels).item() == pytest.approx(by_hand(scores, labels, weights, gamma, dice), rel=1e-5)
    assert loss.total(labels).item() == pytest.approx(sum(weights[label] for label in labels[labels != VOID]))
    if not gamma and not dice:
        theirs = F.cross_entropy(scores, labels, torch.tensor(weights), ignore_index=VOID)
        torch.testing.assert_close(loss(scores, labels), theirs)
    void = loss(scores.requires_grad_(), torch.full_like(labels, VOID))
    void.backward()
    assert void.item() == 0 and not scores.grad.any()


def test_focal_loss_of_two_classes_is_torchvisions():
    scores, labels = scene(1, classes=3)
    scores, labels = scores[:, :2], labels.clamp(max=1)
    theirs = sigmoid_focal_loss(scores[:, 1] - scores[:, 0], labels.float(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(PixelLoss(torch.ones(2), gamma=2.0)(scores, labels), theirs)


def test_right_pixels_have_finite_gradients_and_no_loss():
    _, labels = scene()
    scores = torch.zeros(2, 4, 5, 6).scatter_(1, labels.where(labels != VOID, 0)[:, None], 200.0).requires_grad_()
    loss = PixelLoss(torch.ones(4), gamma=0.5, dice=1.0)(scores, labels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and scores.grad.isfinite().all()
    assert dice_loss(-scores, labels).item() > 0.5


def test_weights_follow_from_the_pixels():
    numbers = np.array([1000, 10, 0, 100])
    assert balancing(numbers, 1.0).tolist() == pytest.approx([0.1, 10, 1, 1])
    assert balancing(numbers, 0.5).tolist() == pytest.approx([0.1**0.5, 10**0.5, 1, 1])
    assert balancing(numbers, 0.0).tolist() == [1] * 4


def task_of(**solver) -> SegmentationTask:
    config = default_config()
    config.MODEL.NAME, config.MODEL.DEVICE = "resnet18", "cpu"
    config.SOLVER.update(solver)
    train = type("Set", (), {"classes": list("abcd"), "pixels": np.array([40, 10, 20, 10])})()
    torch.manual_seed(0)
    return SegmentationTask(build(config, 4).eval(), train, train, config)


def test_a_batch_in_parts_has_the_loss_of_the_whole():
    task = task_of(CLASS_WEIGHTS=(1.0, 2.0, 1.0, 0.5), CLASS_BALANCE=1.0, LOSS="focal")
    torch.testing.assert_close(task.loss._weights[[0, 1, 2, 3, VOID]], torch.tensor([0.375, 3.0, 0.75, 0.75, 0.0]))
    images, (_, labels) = torch.randint(0, 255, (2, 3, 5, 6), dtype=torch.uint8), scene()
    labels[0, 1:, :] = VOID
    batch = Batch(images, labels)
    whole = task.losses(task.model, batch, 0)["loss_seg"]
    parts = [task.losses(task.model, part, 0)["loss_seg"] * share for part, share in task.parts(batch, 0, 2)]
    torch.testing.assert_close(sum(parts), whole)


def test_processes_share_the_mean_over_the_pixels(monkeypatch):
    """Gradients are averaged over the processes, so each weighs its loss by its own pixels over their mean."""
    task = task_of(CLASS_WEIGHTS=(1.0, 2.0, 1.0, 0.5))
    images, (_, labels) = torch.randint(0, 255, (2, 3, 5, 6), dtype=torch.uint8), scene()
    labels[0, 1:, 2:] = VOID
    whole = task.losses(task.model, Batch(images, labels), 0)["loss_seg"]
    mean = task.loss.total(labels) / 2
    monkeypatch.setattr("backbone.segmentation.task.distributed.mean", lambda values: mean)
    for number in (1, 2):
        found = 0
        for index in range(2):
            half = Batch(images[index : index + 1], labels[index : index + 1])
            parts = [(half, 1)] if number == 1 else task.parts(half, 0, number)
            found += sum(task.losses(task.model, part, 0)["loss_seg"] * share for part, share in parts)
        torch.testing.assert_close(found / 2, whole)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("SOLVER.LOSS", "hinge"), "SOLVER.LOSS is 'hinge'; one of cross_entropy, focal"),
        (("SOLVER.FOCAL_GAMMA", -1.0), "SOLVER.FOCAL_GAMMA must be 0 or more"),
        (("SOLVER.DICE_WEIGHT", float("nan")), "SOLVER.DICE_WEIGHT must be 0 or more"),
        (("SOLVER.CLASS_WEIGHTS", "(0, 0)"), "SOLVER.CLASS_WEIGHTS holds numbers, 0 or more, not all 0; not"),
        (("SOLVER.CLASS_WEIGHTS", "('a', 1)"), "SOLVER.CLASS_WEIGHTS holds numbers"),
        (("SOLVER.CLASS_WEIGHTS", "(1, -2)"), "SOLVER.CLASS_WEIGHTS holds numbers"),
    ],
)
def test_wrong_values_are_named(pairs, said):
    with pytest.raises(ConfigError, match=said.replace("(", "\\(")):
        load_config("mini_fcn_r18.yaml", list(pairs))


def test_as_many_weights_as_classes():
    config = load_config("mini_fcn_r18.yaml", ["SOLVER.CLASS_WEIGHTS", "(1, 2)"])
    check_class_weights(config, "config", ["a", "b"])
    with pytest.raises(
        ConfigError, match="has 2 numbers, the data has 3 classes; give one for each, in the order a, b"
    ):
        check_class_weights(config, "config", ["a", "b", "c"])

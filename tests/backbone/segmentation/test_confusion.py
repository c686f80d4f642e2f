"""Figures of segmentation against a count pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backbone.segmentation.evaluation import VOID, Confusion, metrics

NAMES = ["a", "b", "c", "d", "e"]


def images(seed: int, classes: int, number: int = 3):
    random = np.random.default_rng(seed)
    for _ in range(number):
        truth = random.integers(0, classes, (13, 17)).astype(np.uint8)
        predicted = np.where(random.random((13, 17)) < 0.6, truth, random.integers(0, classes, (13, 17)))
        truth[random.random((13, 17)) < 0.1] = VOID
        yield predicted.astype(np.uint8), truth


def slow_metrics(pairs, names):
    """IoU and accuracy of each class by sets of pixels."""
    iou, accuracy, weights, right, known = {}, {}, {}, 0, 0
    for label, name in enumerate(names):
        both = either = true = 0
        for predicted, truth in pairs:
            for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist()):
                if t != VOID:
                    both += p == label and t == label
                    either += p == label or t == label
                    true += t == label
        iou[name] = both / either if either else float("nan")
        accuracy[name] = both / true if true else float("nan")
        weights[name] = true
        right, known = right + both, known + true
    defined = [value for value in iou.values() if value == value]
    means = [value for value in accuracy.values() if value == value]
    return {
        "mIoU": sum(defined) / len(defined),
        "mACC": sum(means) / len(means),
        "pACC": right / known,
        "fwIoU": sum(iou[name] * weights[name] / known for name in names if weights[name]),
        **{f"IoU-{name}": value for name, value in iou.items()},
        **{f"ACC-{name}": value for name, value in accuracy.items()},
    }


def confusion_of(pairs, classes: int) -> Confusion:
    confusion = Confusion(classes)
    for predicted, truth in pairs:
        confusion.add(torch.from_numpy(predicted), torch.from_numpy(truth))
    return confusion


@pytest.mark.parametrize("seen", [5, 4, 2])
def test_figures_are_those_of_a_count_pixel_by_pixel(seen):
    # With fewer classes in the images than names, some classes occur nowhere.
    pairs = list(images(seen, seen))
    found = metrics(confusion_of(pairs, 5).counts, NAMES)
    expected = slow_metrics(pairs, NAMES)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, nan_ok=True), name


def test_a_class_that_is_only_predicted_counts_as_missed():
    truth, predicted = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    predicted[0] = 1
    found = metrics(confusion_of([(predicted, truth)], 3).counts, NAMES[:3])
    assert found["IoU-b"] == 0 and np.isnan(found["ACC-b"]) and np.isnan(found["IoU-c"])
    assert found["mIoU"] == pytest.approx((12 / 16 + 0) / 2)


def test_counts_stay_exact_where_floats_would_round():
    confusion = Confusion(2)
    confusion.counts[0, 0] = 2**53
    confusion.add(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.uint8))
    assert confusion.counts[0, 0].item() == 2**53 + 3


def test_an_image_that_is_void_all_over_gives_no_figures():
    pair = (np.zeros((3, 3), np.uint8), np.full((3, 3), VOID, np.uint8))
    assert all(np.isnan(value) for value in metrics(confusion_of([pair], 2).counts, NAMES[:2]).values())

"""Figures of segmentation against a count pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backbone.segmentation.evaluation import VOID, Confusion, mean_iou, metrics

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
    iou, accuracy, precision, dice, weights, right, known = {}, {}, {}, {}, {}, 0, 0
    for label, name in enumerate(names):
        both = either = true = found = 0
        for predicted, truth in pairs:
            for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist()):
                if t != VOID:
                    both += p == label and t == label
                    either += p == label or t == label
                    true += t == label
                    found += p == label
        iou[name] = both / either if either else float("nan")
        accuracy[name] = both / true if true else float("nan")
        precision[name] = both / found if found else float("nan")
        dice[name] = 2 * both / (true + found) if true + found else float("nan")
        weights[name] = true
        right, known = right + both, known + true

    def mean(values):
        defined = [value for value in values.values() if value == value]
        return sum(defined) / len(defined)

    return {
        "mIoU": mean(iou),
        "mACC": mean(accuracy),
        "mPrecision": mean(precision),
        "mDice": mean(dice),
        "pACC": right / known,
        "fwIoU": sum(iou[name] * weights[name] / known for name in names if weights[name]),
        **{f"IoU-{name}": value for name, value in iou.items()},
        **{f"ACC-{name}": value for name, value in accuracy.items()},
        **{f"Precision-{name}": value for name, value in precision.items()},
        **{f"Dice-{name}": value for name, value in dice.items()},
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


def test_the_mean_iou_of_one_image_is_that_of_its_own_pixels():
    confusion = Confusion(5)
    for predicted, truth in images(1, 4):
        alone = confusion.add(torch.from_numpy(predicted), torch.from_numpy(truth))
        assert float(mean_iou(alone)) == pytest.approx(slow_metrics([(predicted, truth)], NAMES)["mIoU"], abs=1e-12)


def test_pixels_that_are_found_as_no_class_are_missed():
    counts = np.array([[5, 1, 2], [0, 3, 4]])  # the last column: neither a nor b
    found = metrics(counts, NAMES[:2])
    assert found["ACC-a"] == 5 / 8 and found["Precision-b"] == 3 / 4 and found["pACC"] == 8 / 15
    assert found["IoU-a"] == 5 / 8 and found["IoU-b"] == 3 / 8 and found["Dice-b"] == 6 / 11

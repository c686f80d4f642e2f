"""Whole images at several scales and mirrored, against the average written out; losses and pictures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small_segmentation import CLASSES, scene, write_folders
from torch.nn import functional as F

from backbone.common.errors import DataError
from backbone.common.images import resize_image
from backbone.engine.loading import Batch
from backbone.segmentation import default_config
from backbone.segmentation.data import open_sets
from backbone.segmentation.data.labels import voc_palette
from backbone.segmentation.evaluation import VOID
from backbone.segmentation.inference import predict
from backbone.segmentation.networks import build
from backbone.segmentation.pictures import comparison, overlay
from backbone.segmentation.task import SegmentationTask


@pytest.fixture
def config(tmp_path):
    config = default_config()
    config.DATA.NAME, config.DATA.ROOT = "folders", str(write_folders(tmp_path / "set"))
    config.MODEL.NAME, config.MODEL.DEVICE = "resnet18", "cpu"
    config.DATALOADER.NUM_WORKERS = 0
    return config


def task_of(config, **keywords) -> SegmentationTask:
    torch.manual_seed(1)
    train, test = open_sets(config, training=True)
    return SegmentationTask(build(config, len(CLASSES)), train, test, config, **keywords)


def by_hand(network, image, config, scales, flips, shorter_side):
    height, width = image.shape[:2]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD))
    total = torch.zeros(len(CLASSES), height, width)
    for scale in scales:
        factor = scale * (shorter_side / min(height, width) if shorter_side else 1)
        pixels = resize_image(image, round(width * factor), round(height * factor)).copy()
        x = ((torch.from_numpy(pixels).permute(2, 0, 1).float() - mean) / std)[None]
        for flip in flips:
            with torch.no_grad():
                features = network.backbone(x.flip(-1) if flip else x)["res5"]
                scores = network.classifier(features)
            scores = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
            total += (scores.flip(-1) if flip else scores).softmax(1)[0]
    return total.argmax(0)


@pytest.mark.parametrize(
    ("scales", "flip", "shorter_side"), [((1.0,), False, 0), ((1.0,), False, 50), ((0.75, 1.0, 1.5), True, 0)]
)
def test_scales_and_flip_are_averaged(config, scales, flip, shorter_side):
    config.TEST.SCALES, config.TEST.FLIP, config.TEST.SHORTER_SIDE = scales, flip, shorter_side
    task = task_of(config)
    network = task.model.eval()
    image = np.ascontiguousarray(scene(5)[0][:, :, ::-1])
    found = predict(network, image, task.inference())
    expected = by_hand(network, image, config, scales, (False, True) if flip else (False,), shorter_side)
    assert found.shape == image.shape[:2] and len(found.unique()) > 1
    assert (found == expected).float().mean() > 0.999


def in_windows(network, image, config, window, stride, scale):
    """Pixel by pixel the mean over the windows that hold it, each computed alone."""
    height, width = (round(side * scale) for side in image.shape[:2])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD))
    pixels = torch.from_numpy(resize_image(image, width, height).copy()).permute(2, 0, 1).float()
    x = ((pixels - mean) / std)[None]
    seen = {}
    places = [[], []]
    for place, side in zip(places, (height, width)):
        start = 0
        while True:
            place.append(max(0, min(start, side - window)))
            if start + window >= side:
                break
            start += stride
    for top, left in itertools.product(*places):
        part = x[:, :, top : top + window, left : left + window]
        with torch.no_grad():
            scores = network.classifier(network.backbone(part)["res5"])
        scores = F.interpolate(scores, part.shape[2:], mode="bilinear")[0].permute(1, 2, 0).numpy()
        for row, column in np.ndindex(*scores.shape[:2]):
            seen.setdefault((top + row, left + column), []).append(scores[row, column])
    means = [np.mean(seen[place], axis=0) for place in np.ndindex(height, width)]
    total = torch.from_numpy(np.stack(means)).view(1, height, width, -1).permute(0, 3, 1, 2)
    scores = F.interpolate(total, image.shape[:2], mode="bilinear", align_corners=False)
    return scores[0].argmax(0), max(map(len, seen.values()))


@pytest.mark.parametrize(
    ("window", "stride", "scale", "most"), [(32, 0, 1.0, 4), (40, 35, 1.25, 4), (64, 64, 1.0, 2), (500, 7, 0.5, 1)]
)
def test_windows_are_averaged(config, window, stride, scale, most):
    config.TEST.WINDOW, config.TEST.WINDOW_STRIDE, config.TEST.SCALES = window, stride, (scale,)
    task = task_of(config)
    network, image = task.model.eval(), np.ascontiguousarray(scene(4)[0][:, :, ::-1])
    found = predict(network, image, task.inference())
    expected, times = in_windows(network, image, config, window, stride or 22, scale)
    assert found.shape == image.shape[:2] and (found == expected).float().mean() > 0.999 and times >= most
    config.TEST.SCALES, config.TEST.FLIP = (1.0, 1.5), True
    assert predict(network, image, task.inference()).shape == image.shape[:2]


def test_bgr_weights_see_bgr(config):
    config.INPUT.FORMAT = "BGR"
    config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD = [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]
    pixels = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    assert task_of(config).prepare(pixels).flatten().tolist() == [29.0, 18.0, 7.0]


def test_losses_leave_out_void(config):
    task = task_of(config)
    images = torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8)
    labels = torch.randint(0, 3, (2, 40, 40))
    labels[:, :, :10] = VOID
    network = task.model.train()
    network.classifier[3].p = network.aux_classifier[3].p = 0.0
    losses = task.losses(network, Batch(images, labels), 0)
    scores = network(task.prepare(images))
    for name, head, weight in (("loss_seg", "out", 1.0), ("loss_aux", "aux", 0.4)):
        picked = scores[head].log_softmax(1).permute(0, 2, 3, 1)[labels != VOID]
        expected = -weight * picked[torch.arange(len(picked)), labels[labels != VOID]].mean()
        torch.testing.assert_close(losses[name], expected, rtol=1e-4, atol=1e-5)
    right = (scores["out"].argmax(1) == labels)[labels != VOID].float().mean()
    assert task.step_metrics()["train_accuracy"].item() == pytest.approx(right.item(), abs=1e-3)
    void = task.losses(network, Batch(images, torch.full_like(labels, VOID)), 0)
    assert all(loss.item() == 0 for loss in void.values())


def test_evaluation_predictions_and_pictures(config, tmp_path):
    config.TEST.PICTURES = 2
    task = task_of(config, predictions=tmp_path / "out")
    results = task.evaluate()
    assert set(results) == {"sem_seg"} and 0 <= results["sem_seg"]["mIoU"] <= 1
    # Every pixel with a truth was counted once.
    labels = [task.test.read(index)[1] for index in range(3)]
    assert task.confusion.counts.sum().item() == sum(int((label != VOID).sum()) for label in labels)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0.png", "1.png", "2.png"}
    assert sorted(task.drawn) == [0, 2] and set(task.comparisons()) == {"0", "2"}


def test_the_average_of_the_weights_is_tested_and_kept(config):
    config.SOLVER.EMA_DECAY = 0.5
    task = task_of(config)
    average = {name: value.clone() for name, value in task.model.state_dict().items()}
    for step in range(1, 3):
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        task.stepped(step)
        rate = 1 - min(0.5, (1 + step) / (10 + step))
        for name, value in task.model.state_dict().items():
            average[name] = average[name] + rate * (value - average[name]) if value.is_floating_point() else value
    kept = task.weights()
    assert all(torch.allclose(kept[name], value, atol=1e-6) for name, value in average.items())
    plain = task_of(config)
    plain.average = None
    plain.model.load_state_dict(average)
    plain.model.eval()
    assert task.evaluate() == plain.evaluate()
    assert torch.equal(task.learned().backbone.conv1.weight, kept["backbone.conv1.weight"])


def test_a_test_leaves_out_what_cannot_be_read_and_training_replaces_it(config):
    task = task_of(config)
    for images in (task.train, task.test):
        content = images.path(1).read_bytes()
        images.path(1).write_bytes(content[: len(content) // 2])
    whole = sum(int((task.test.label(index) != VOID).sum()) for index in (0, 2))
    task.evaluate()
    assert list(task.left_out) == [1] and "1.png" in task.left_out[1] and task.confusion.counts.sum().item() == whole
    config.INPUT.TRAIN_SIZE, config.SOLVER.IMS_PER_BATCH = 32, 4
    batches = [list(task.batches(0, 3)) for _ in range(2)]
    assert len(task.broken.messages) == 1 and "1.png" in task.broken.messages[0]
    assert all(torch.equal(a.images, b.images) for a, b in zip(*batches))
    for index in range(3):
        task.test.path(index).write_bytes(b"")
    with pytest.raises(DataError, match="3 of 3 images cannot be read"):
        task.evaluate()


def test_a_class_0_that_is_no_background_has_a_colour_and_a_name():
    image = np.full((340, 340, 3), 100, np.uint8)
    label = np.zeros((340, 340), np.uint8)
    label[:, 170:] = 1
    for classes, colour in ((("road", "sky"), voc_palette()[2]), (("background", "sky"), None)):
        drawn = overlay(image, label, classes)
        expected = 100 if colour is None else (0.4 * 100 + 0.6 * colour.astype(float)).round()
        assert np.abs(drawn[0, 0].astype(float) - expected).max() <= 1
        legend = comparison(image, label, None, classes)[340:]
        assert (legend == voc_palette()[2]).all(-1).any() == (colour is not None)
        assert (legend == voc_palette()[1]).all(-1).any()


def test_overlays_show_labels_in_vocs_colours():
    image = np.full((40, 50, 3), 100, np.uint8)
    label = np.zeros((40, 50), np.uint8)
    label[:, 20:30], label[:, 30:] = 1, VOID
    drawn = overlay(image, label, ("background", "a", "b"))
    assert (drawn[:, :20] == 100).all()
    assert np.abs(drawn[0, 25] - (0.4 * 100 + 0.6 * voc_palette()[1])).max() <= 1
    assert (drawn[:, 30:] == 193).all()
    picture = comparison(image, label, label, CLASSES)
    assert picture.shape[1] == 3 * 400 + 2 * 4 and picture.shape[0] > 320
    legend = picture[320:]
    assert (legend == voc_palette()[1]).all(-1).sum() >= 100 and not (legend == voc_palette()[2]).all(-1).any()

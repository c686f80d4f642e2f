"""Gray images and images of bands under labels: trained on and tested as they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from backbone.common.errors import ConfigError, DataError
from backbone.engine.defaults import reading_of
from backbone.engine.starting_weights import StartingWeights
from backbone.segmentation import default_config
from backbone.segmentation.config import check_values
from backbone.segmentation.data import open_sets
from backbone.segmentation.data.batches import training_batches
from backbone.segmentation.data.check import check_set
from backbone.segmentation.networks import build
from backbone.segmentation.task import SegmentationTask
from backbone.segmentation.weights import WEIGHT_KEYS, load_whole

MEANS = {"L": [100.0], "bands": [1.0, 2.0, 3.0, 4.0, 5.0]}


def config_of(root, kind: str):
    """Write two images a split, 36 x 40, and return a config for them."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for index in range(2):
            label = random.integers(0, 2, (36, 40)).astype(np.uint8)
            cv2.imwrite(str(root / "labels" / split / f"{index}.png"), label)
            if kind == "L":
                image = random.integers(0, 256, (36, 40), dtype=np.uint8)
                cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
            else:
                np.save(root / "images" / split / f"{index}.npy", (random.random((36, 40, 5)) * 900).astype(np.uint16))
    (root / "classes.txt").write_text("off\non\n")
    config = default_config()
    config.DATA.NAME, config.DATA.ROOT, config.INPUT.FORMAT = "folders", str(root), kind
    config.MODEL.NAME, config.MODEL.DEVICE = "resnet18", "cpu"
    config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD = MEANS[kind], [2.0] * len(MEANS[kind])
    config.INPUT.TRAIN_SIZE, config.INPUT.SCALE, config.INPUT.FLIP = 48, (1.0, 1.0), False
    config.SOLVER.IMS_PER_BATCH, config.DATALOADER.NUM_WORKERS = 2, 0
    check_values(config, "a.yaml")
    return config


@pytest.mark.parametrize("kind", MEANS)
def test_images_reach_the_network_as_they_are(kind, tmp_path):
    config = config_of(tmp_path, kind)
    train, test = open_sets(config, training=True)
    train.reading = test.reading = reading_of(config)
    assert check_set(train, config, training=True) == []
    (batch,) = training_batches(train, config, torch.device("cpu"), 0, 1)
    own = {tuple(label.ravel()[:40]): image for image, label in (train.read(index) for index in range(2))}
    mean = torch.tensor(MEANS[kind])
    for pixels, labels in zip(batch.images, batch.labels):
        image = own[tuple(labels[0, :40].tolist())]
        assert torch.equal(pixels[:, :36, :40], torch.from_numpy(image).permute(2, 0, 1))
        assert torch.equal(pixels[:, 40, 45].float(), mean)
    task = SegmentationTask(build(config, 2), train, test, config)
    torch.testing.assert_close(task.prepare(batch.images), (batch.images.float() - mean.view(-1, 1, 1)) / 2)
    assert task.losses(task.model.train(), batch, 0)["loss_seg"].isfinite()
    assert task.pictures(batch)["training batch"].shape[2] == 3
    config.TEST.WINDOW, config.TEST.SCALES, config.TEST.PICTURES = 32, (1.0, 1.5), 1
    assert set(task.evaluate()) == {"sem_seg"}
    assert all(picture.shape[2] == 3 for picture in task.comparisons().values())


def test_a_network_for_colour_is_adapted_and_a_gray_one_sets_the_config(tmp_path):
    config = config_of(tmp_path, "L")
    colour = default_config()
    colour.MODEL.NAME, colour.MODEL.DEVICE = "resnet18", "cpu"
    tensors = build(colour, 2).state_dict()
    network = build(config, 2)
    said = load_whole(network, StartingWeights("rgb.pth", True, tensors), ["off", "on"])
    assert "adapted from 3 channels to 1: summed" in said
    torch.testing.assert_close(network.backbone.conv1.weight, tensors["backbone.conv1.weight"].sum(1, keepdim=True))
    wants = {"INPUT.FORMAT": "L", "MODEL.PIXEL_MEAN": [5.0], "MODEL.PIXEL_STD": [1.0]}
    fitted, _ = WEIGHT_KEYS.resolve(colour, wants, "gray.pth", ())
    assert reading_of(fitted) == {"channel_order": "L", "channels": 1}
    kept, _ = WEIGHT_KEYS.resolve(config, {"INPUT.FORMAT": "RGB", "MODEL.PIXEL_MEAN": [1.0, 2.0, 3.0]}, "rgb.pth", ())
    assert kept is config


def test_mistakes_are_named(tmp_path):
    config = config_of(tmp_path, "bands")
    config.MODEL.PIXEL_STD = [1.0]
    with pytest.raises(ConfigError, match="INPUT.FORMAT bands needs .* not 5 and 1"):
        check_values(config, "a.yaml")
    train, _ = open_sets(config, training=True)
    with pytest.raises(DataError, match="INPUT.FORMAT bands reads arrays of NumPy"):
        check_set(train, config, training=True)
    train.reading = {"channel_order": "bands", "channels": 4}
    with pytest.raises(DataError, match="has 5 bands, MODEL.PIXEL_MEAN has 4 numbers"):
        check_set(train, config, training=True)

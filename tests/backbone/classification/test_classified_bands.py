"""Gray images and images of bands: read, cut, tested and trained on as they are, and adapted weights."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import backbone
from backbone.classification import config as classification
from backbone.classification.data import open_sets
from backbone.classification.data.batches import make_batches
from backbone.classification.networks import build, fit_weights, load_into
from backbone.classification.session import prepare_for
from backbone.classification.task import ClassificationTask
from backbone.classification.testing.protocols import Protocol
from backbone.classification.testing.views import Views
from backbone.common.errors import ConfigError, DataError
from backbone.engine.defaults import reading_of
from backbone.engine.share import Share

MEANS = {"L": [100.0], "bands": [1.0, 2.0, 3.0, 4.0, 5.0]}
SIDE = 32


def write_images(root, kind: str) -> list[np.ndarray]:
    """Write train and val with the classes a and b, an image each; return those of val."""
    random, images = np.random.default_rng(0), []
    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = root / split / name
            folder.mkdir(parents=True)
            if kind == "L":
                image = random.integers(0, 256, (SIDE, SIDE, 1), dtype=np.uint8)
                cv2.imwrite(str(folder / "0.png"), image)
            else:
                image = (random.random((SIDE, SIDE, 5)) * 1000).astype(np.float32)
                np.save(folder / "0.npy", image)
            images.append(image)
    return images[2:]


def config_of(root, kind: str):
    config = classification.default_config()
    config.DATA.NAME, config.DATA.ROOT, config.INPUT.FORMAT = "folder", str(root), kind
    config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD = MEANS[kind], [2.0] * len(MEANS[kind])
    config.MODEL.NAME, config.MODEL.DEVICE, config.MODEL.NUM_CLASSES = "resnet18", "cpu", 2
    config.INPUT.TRAIN_SIZE, config.INPUT.SHORTER_SIDE, config.INPUT.FLIP = SIDE, (SIDE, SIDE), False
    config.INPUT.LIGHTING, config.SOLVER.IMS_PER_BATCH, config.DATALOADER.NUM_WORKERS = 0.0, 2, 0
    classification.check_values(config, "a.yaml")
    return config


@pytest.mark.parametrize("kind", MEANS)
def test_images_reach_the_network_as_they_are(kind, tmp_path):
    images = write_images(tmp_path, kind)
    config = config_of(tmp_path, kind)
    train, test = open_sets(config, training=True)
    train.reading = test.reading = reading_of(config)
    views = Views(test, range(2), Protocol("1crop", crop=SIDE, shorter_side=SIDE))
    assert all(np.array_equal(views[row][1][0][0], image) for row, image in enumerate(images))
    task = ClassificationTask(build(config), train, test, config)
    (batch,) = make_batches(test, config, torch.device("cpu")).steps(0, 1)
    pixels = torch.stack([torch.from_numpy(images[label]).permute(2, 0, 1) for label in batch.labels])
    assert torch.equal(batch.images, pixels)
    inputs, _, _ = task.augment(batch, 0, Share())
    torch.testing.assert_close(inputs, (pixels.float() - torch.tensor(MEANS[kind]).view(-1, 1, 1)) / 2)
    assert task.losses(task.model, batch, 0)["loss_class"].isfinite()
    assert task.pictures(batch)["training batch"].shape[2] == 3
    assert set(task.evaluate()) == {"1crop"}


def test_weights_are_adapted_and_a_test_reads_what_its_file_was_trained_on(tmp_path):
    colour = backbone.create("resnet18", num_classes=2, out_features=("logits",))
    colour.preprocessing = backbone.Preprocessing("RGB", 255, (1.0, 2.0, 6.0), (1.0, 1.0, 4.0))
    backbone.save_weights(colour, tmp_path / "colour.safetensors")
    config = config_of(tmp_path, "L")
    config.freeze()
    fitted, weights, notes = fit_weights(config, str(tmp_path / "colour.safetensors"), (), images=True)
    assert fitted.MODEL.PIXEL_MEAN == [100.0] and not notes
    network = build(fitted)
    trained = load_into(network, weights)
    torch.testing.assert_close(network.conv1.weight, colour.conv1.weight.sum(1, keepdim=True))
    prepared = prepare_for(trained, fitted)(torch.full((1, 1, 2, 2), 5.0))
    torch.testing.assert_close(prepared, torch.full((1, 1, 2, 2), (5.0 - 3.0) / 2))
    gray = backbone.create("resnet18", in_chans=1, num_classes=2)
    gray.preprocessing = backbone.Preprocessing("L", 255, (9.0,), (3.0,))
    backbone.save_weights(gray, tmp_path / "gray.safetensors")
    plain = classification.default_config()
    plain.MODEL.NAME = "resnet18"
    plain.freeze()
    fitted, _, _ = fit_weights(plain, str(tmp_path / "gray.safetensors"), (), images=False)
    assert reading_of(fitted) == {"channel_order": "L", "channels": 1}
    with pytest.raises(ConfigError, match="INPUT.FORMAT is RGB on the command line, .* a network with L"):
        fit_weights(plain, str(tmp_path / "gray.safetensors"), ("INPUT.FORMAT",), images=False)


def test_mistakes_are_named(tmp_path):
    write_images(tmp_path, "bands")
    for changes, said in (
        ({"INPUT.FORMAT": "L"}, "INPUT.FORMAT L needs 1 number in MODEL.PIXEL_MEAN and PIXEL_STD, not 3 and 3"),
        ({"INPUT.FORMAT": "bands"}, "INPUT.LIGHTING shifts red, green and blue; .* set INPUT.LIGHTING 0"),
        ({"INPUT.FORMAT": "bands", "DATA.NAME": "cifar100", "INPUT.CROP": "pad"}, "cifar100 has colour images"),
    ):
        config = classification.default_config()
        config.TEST.PROTOCOL = "single"
        config.merge_from_list([part for pair in changes.items() for part in pair])
        with pytest.raises(ConfigError, match=said):
            classification.check_values(config, "a.yaml")
    config = config_of(tmp_path, "bands")
    _, test = open_sets(config, training=False)
    assert "INPUT.FORMAT bands reads arrays of NumPy" in Views(test, range(2), Protocol("single"))[0][1]
    test.reading = {"channel_order": "bands", "channels": 4}
    with pytest.raises(DataError, match="has 5 bands, MODEL.PIXEL_MEAN has 4 numbers"):
        next(make_batches(test, config, torch.device("cpu")).steps(0, 1))

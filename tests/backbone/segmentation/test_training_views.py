"""Random views: labels follow the image, and draws follow from the position alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_segmentation import write_folders
from torchvision.transforms import v2

from backbone.common.errors import ConfigError
from backbone.engine.defaults import color_jitter
from backbone.segmentation import default_config
from backbone.segmentation.config import check_values
from backbone.segmentation.data import open_sets
from backbone.segmentation.data.augment import View, training_view
from backbone.segmentation.data.batches import training_batches
from backbone.segmentation.evaluation import VOID


def striped(height: int = 60, width: int = 84) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose red channel is 40 times the label; blocks of 12 pixels."""
    rows, columns = np.mgrid[:height, :width] // 12
    label = ((rows * 7 + columns * 5) % 6).astype(np.uint8)
    return np.stack([label * 40, np.full_like(label, 9), np.full_like(label, 99)], axis=-1), label


@pytest.mark.parametrize("shorter_side", [0, 90])
@pytest.mark.parametrize("scale", [(0.5, 0.9), (1.0, 1.0), (1.3, 2.0)])
def test_labels_stay_on_their_pixels(scale, shorter_side):
    view = View(64, scale, shorter_side, True, (1.0, 2.0, 3.0))
    for seed in range(12):
        pixels, values = training_view(*striped(), np.random.default_rng(seed), view)
        assert pixels.shape == (64, 64, 3) and values.shape == (64, 64)
        inside = values != VOID
        assert (pixels[~inside] == (1, 2, 3)).all() and inside.any()
        # At the rims of blocks the image is mixed and the labels are not; all but those agree.
        agree = np.abs(pixels[..., 0].astype(int) - values.astype(int) * 40)[inside] <= 12
        assert agree.mean() > 0.72
        shifted = np.abs(np.roll(pixels[..., 0], 4, 1).astype(int) - values.astype(int) * 40)[inside] <= 12
        assert agree.mean() > shifted.mean() + 0.05


def test_at_its_own_size_a_view_is_a_part_of_the_image_or_its_mirror():
    image, label = striped()
    view = View(32, (1.0, 1.0), 0, True, (0, 0, 0))
    sides = set()
    for seed in range(10):
        pixels, values = training_view(image, label, np.random.default_rng(seed), view)
        assert np.array_equal(pixels[..., 0], values * 40)
        plain = any(
            np.array_equal(values, label[top : top + 32, left : left + 32]) for top in range(29) for left in range(53)
        )
        sides.add(plain)
    assert sides == {True, False}


def test_colour_jitter_is_torchvisions_and_leaves_all_else():
    image, label = striped()
    own = default_config().INPUT
    own.COLOR_JITTER.ENABLED, own.COLOR_JITTER.HUE = True, 0.1
    plain = View(32, (0.8, 1.2), 0, False, (0, 0, 0))
    changed = replace(plain, jitter=color_jitter(own))
    peer = v2.ColorJitter(0.2, 0.2, 0.2, 0.1)
    before, different = torch.get_rng_state(), 0
    for seed in range(6):
        random = np.random.default_rng(seed)
        pixels, values = training_view(image, label, random, plain)
        found, labels = training_view(image, label, np.random.default_rng(seed), changed)
        again, _ = training_view(image, label, np.random.default_rng(seed), changed)
        # The generator stands behind the view's own draws; torch's then follow from its next number.
        state = torch.get_rng_state()
        torch.manual_seed(int(random.integers(2**63)))
        expected = peer(torch.from_numpy(pixels.copy()).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        torch.set_rng_state(state)
        assert np.array_equal(labels, values) and np.array_equal(found, again) and np.array_equal(found, expected)
        different += not np.array_equal(found, pixels)
    assert different == 6 and torch.equal(torch.get_rng_state(), before)
    gray = training_view(image[:, :, :1], label, np.random.default_rng(0), replace(changed, fill=(0,)))[0]
    assert gray.shape == (32, 32, 1)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("HUE", 0.6, "COLOR_JITTER.HUE must be at most 0.5"),
        ("BRIGHTNESS", -0.1, "COLOR_JITTER.BRIGHTNESS must be 0 or"),
    ],
)
def test_wrong_jitter_is_named(key, value, said):
    config = default_config()
    config.INPUT.COLOR_JITTER[key] = value
    with pytest.raises(ConfigError, match=said):
        check_values(config, "a.yaml")
    config = default_config()
    config.INPUT.COLOR_JITTER.ENABLED, config.INPUT.FORMAT = True, "bands"
    with pytest.raises(ConfigError, match="COLOR_JITTER is for colour and gray images"):
        check_values(config, "a.yaml")


def test_batches_follow_from_the_position(tmp_path):
    config = default_config()
    config.DATA.NAME, config.DATA.ROOT = "folders", str(write_folders(tmp_path))
    config.INPUT.TRAIN_SIZE, config.SOLVER.IMS_PER_BATCH = 40, 3
    config.INPUT.COLOR_JITTER.ENABLED = True
    train, _ = open_sets(config, training=True)
    device = torch.device("cpu")
    config.DATALOADER.NUM_WORKERS = 0
    whole = list(training_batches(train, config, device, 0, 4))
    config.DATALOADER.NUM_WORKERS = 2
    later = list(training_batches(train, config, device, 2, 4))
    assert len(whole) == 4 and len(later) == 2
    assert whole[0].images.shape == (3, 3, 40, 40) and whole[0].labels.dtype == torch.int64
    for ours, again in zip(whole[2:], later):
        assert torch.equal(ours.images, again.images) and torch.equal(ours.labels, again.labels)
    assert not torch.equal(whole[0].images, whole[1].images)

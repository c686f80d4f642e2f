"""Detectors on gray images and on bands: built, given weights of three channels, trained, tested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peers import config
from small_detectors import KINDS, SMALL
from timm.models import adapt_input_conv

import backbone
from detection.config.checks import check_values
from detection.inference.transform import TestTransform
from detection.modeling.backbone import network_of
from detection.modeling.build import build
from detection.weights.load import load_initial, open_starting_weights


def settings_of(channels: int, order: str):
    name, own = KINDS["fpn"]
    pixels = {"MODEL__PIXEL_MEAN": [100.0] * channels, "MODEL__PIXEL_STD": [50.0] * channels, "INPUT__FORMAT": order}
    return config(name, **{**SMALL, **own, **pixels, "INPUT__MIN_SIZE_TEST": 64, "INPUT__MAX_SIZE_TEST": 96})


@pytest.mark.parametrize(("channels", "order"), [(1, "L"), (4, "bands"), (12, "bands")])
def test_a_detector_of_other_channels(tmp_path, channels, order):
    source = backbone.create("resnet18")
    backbone.save_weights(source, tmp_path / "w.pth")
    settings = settings_of(channels, order)
    check_values(settings, "the config")
    model = build(settings).eval()
    said = load_initial(model, open_starting_weights(str(tmp_path / "w.pth")), settings)
    assert f"conv1.weight adapted from 3 channels to {channels}" in said
    assert torch.equal(network_of(model).conv1.weight, adapt_input_conv(channels, source.conv1.weight.detach()))
    image = np.random.default_rng(0).integers(0, 256, (48, 64, channels)).astype(np.float32)
    sample = TestTransform(settings)(image, order)
    assert sample["image"].shape[0] == channels
    expected = (sample["image"] - 100) / 50
    torch.testing.assert_close(
        model.preprocess_image([sample]).tensor[0, :, : expected.shape[1], : expected.shape[2]], expected
    )
    with torch.no_grad():
        assert len(model([sample])) == 1


@pytest.mark.parametrize(("order", "numbers"), [("RGB", 4), ("L", 3), ("BGR", 1), ("bands", 0)])
def test_numbers_that_do_not_fit_the_channels(order, numbers):
    with pytest.raises(backbone.ConfigError, match=f"INPUT.FORMAT {order} needs"):
        check_values(settings_of(numbers, order), "the config")

"""Transforms of the user's own: behind ours, in training alone, the same for the same seed and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import detection
from detection.data import transforms
from detection.data.samples import TrainingSamples
from detection.data.transforms import register_transform
from detection.engine.datasets import load_sets, training_mapper


@pytest.fixture
def config():
    keys = ["DATASETS.TRAIN", ("mini_val",), "DATASETS.TEST", (), "INPUT.MIN_SIZE_TRAIN", (64,)]
    return detection.get_config("mini_faster_rcnn_r18.yaml", keys)


def test_a_transform_of_ones_own(config, monkeypatch):
    monkeypatch.setattr(transforms, "_transforms", {})
    images = load_sets(config, training=True).train
    before = TrainingSamples(training_mapper(images, config), seed=3)[5, 2]

    @register_transform
    def darken(sample, random):
        factor = random.uniform(0.2, 0.8)
        return {**sample, "image": (sample["image"] * factor).to(torch.uint8), "factor": factor}

    mapper = training_mapper(images, config)
    samples = TrainingSamples(mapper, seed=3)
    first, again, other = samples[5, 2], samples[5, 2], samples[6, 2]
    assert first["factor"] == again["factor"] != other["factor"]
    assert torch.equal(first["image"], (before["image"] * first["factor"]).to(torch.uint8))
    assert torch.equal(first["instances"].gt_boxes.tensor, before["instances"].gt_boxes.tensor)
    assert "factor" not in mapper(2)  # without a generator: no training
    assert np.isfinite(first["factor"])

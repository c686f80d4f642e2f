"""What the task gives to the model."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from detection.config import default_config
from detection.engine.task import DetectionTask


def test_images_are_on_the_models_device_before_it_copies_them_one_by_one():
    config = default_config()
    config.MODEL.DEVICE = "meta"
    task = DetectionTask(nn.Identity(), SimpleNamespace(train=None, classes=[]), config)
    batch = [{"image": torch.zeros(3, 4, 5, dtype=torch.uint8), "height": 4} for _ in range(2)]
    given = task.losses(lambda samples: samples, batch, 0)
    assert [(sample["image"].device.type, sample["height"]) for sample in given] == [("meta", 4)] * 2
    # The loader's own samples stay as they are: pictures are drawn of them.
    assert {sample["image"].device.type for sample in batch} == {"cpu"}

"""What a classifier's file leaves open."""

from __future__ import annotations

import pytest
import torch

import backbone
from backbone.classification import load_config
from backbone.classification.networks import build, load_into


@pytest.mark.parametrize(
    ("name", "keys", "bare", "doubted"),
    [
        ("resnet50", (), True, True),
        ("resnet50", ("MODEL.STRIDE_IN_1X1", "False"), True, False),
        ("resnet50", (), False, False),
        ("resnet18", (), True, False),  # its blocks have no 1x1 that could have the stride
    ],
)
def test_a_stride_that_the_file_does_not_tell(name, keys, bare, doubted, tmp_path):
    config = load_config(f"imagenet_{name}.yaml", ["MODEL.NUM_CLASSES", "4", "MODEL.DEVICE", "cpu", *keys])
    network = build(config)
    path = tmp_path / "weights.pth"
    if bare:
        torch.save(network.state_dict(), path)
    else:
        backbone.save_weights(network, path)
    said = str(load_into(build(config), str(path)))
    assert ("torchvision's own weights want MODEL.STRIDE_IN_1X1 False" in said) == doubted

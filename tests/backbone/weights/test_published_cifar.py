"""The trained CIFAR-10 ResNet-20 that others have published, on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import backbone
from backbone.weights import open_weights


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    return shared_data / "cifar_resnet_weights" / "resnet20-12fca82f.th"


@torch.no_grad()
def correct(network: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> int:
    """Count the images (rows of 3072, channel by channel) that the network gives their label."""
    pixels: Tensor = network.preprocessing(torch.from_numpy(images).view(-1, 3, 32, 32))
    found = [network(batch)["logits"].argmax(1) for batch in pixels.split(500)]
    return int((torch.cat(found) == torch.from_numpy(labels[: len(images)])).sum())


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
@pytest.mark.proves("cifar", "backbones", "in", "the published ResNet-20 is right as often as published")
def test_classifies_as_published(weights, shared_data, norm):
    network = backbone.create("cifar_resnet20", num_classes=10, norm=norm).eval()
    report = backbone.load_weights(network, weights)
    assert report.fits and (report.kind, report.layout) == ("torch", "cifar")
    data = np.load(shared_data / "cifar10" / "cifar10_lossless_partial.npz")
    assert correct(network, data["test_batch_first164"], data["test_labels"]) == 151
    if norm == "bn":
        assert correct(network, data["data_batch_1_first4000"], data["train_labels"]) == 3992


def test_it_is_found_to_be_a_resnet20(weights):
    from backbone.weights.identify import find_backbones

    # A plain net has the same tensors: option A's shortcuts have none.
    assert find_backbones(open_weights(weights)) == ["cifar_resnet20", "cifar_plain20"]


def test_names_of_projections(tmp_path):
    """Relatives with option B call the shortcut `shortcut`."""
    source = backbone.create("cifar_resnet20", num_classes=10, shortcut="B")
    names = {name: name.replace("downsample", "shortcut").replace("fc.", "linear.") for name in source.state_dict()}
    state = {f"module.{names[name]}": value for name, value in source.state_dict().items()}
    torch.save({"net": state, "acc": 93.0, "epoch": 199}, tmp_path / "ckpt.pth")
    network = backbone.create("cifar_resnet20", num_classes=10, shortcut="B")
    assert backbone.load_weights(network, tmp_path / "ckpt.pth").layout == "cifar"
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())

"""Every config of configs/ gives the network of its row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from backbone.classification import load_config
from backbone.classification.networks import build
from backbone.networks import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[3] / "configs"
CONFIGS = sorted(
    path.name for kind in ("imagenet_*.yaml", "cifar10*.yaml", "finetune_resnet*.yaml") for path in ROOT.glob(kind)
)
CONFIGS = [name for name in CONFIGS if not name.startswith(("imagenet_det_", "imagenet_loc_"))]


@pytest.mark.parametrize("name", CONFIGS)
def test_its_network_is_built(name, monkeypatch):
    # Shapes alone: the deepest ones take seconds to draw.
    monkeypatch.setattr("backbone.classification.networks.device_of", lambda config: torch.device("meta"))
    with torch.device("meta"):
        network = build(load_config(name, ["MODEL.NUM_CLASSES", "10"]))
    assert network.feature_info["logits"].channels == 10
    dropout = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert not any(dropout) or ARCHITECTURES[network.architecture].block == "conv"

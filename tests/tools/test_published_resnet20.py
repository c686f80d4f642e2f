"""The CIFAR-10 ResNet-20 that others have published, through tools/pretrain.py on the 1,000 true test images."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest


def test_915_of_1000_are_right(tool, shared_data, tmp_path):
    source, weights = shared_data / "cifar10" / "make_npz.py", shared_data / "cifar_resnet_weights"
    for needed in (source, weights):
        if not needed.exists():
            pytest.skip(f"no {needed}")
    spec = importlib.util.spec_from_file_location("make_npz", source)
    make_npz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_npz)
    images = make_npz.rows(make_npz.FOLDER / "test_00.webp")
    labels = np.load(make_npz.FOLDER / "labels.npz")["test_labels"]
    np.savez(tmp_path / "cifar10.npz", test_batch_first1000=images, test_labels=labels)
    asked = ("--config", "cifar10_resnet20.yaml", "--data-root", "cifar10.npz", "--device", "cpu", "--eval-only")
    asked += ("--weights", weights / "resnet20-12fca82f.th", "--output-dir", "run", "DATALOADER.NUM_WORKERS", 0)
    tool("pretrain.py", *asked).fine("8.50", "8.75")
    single = json.loads((tmp_path / "run" / "results.json").read_text())["single"]
    assert single["images"] == 1000
    assert round(single["top1_accuracy"] * 1000) == 915

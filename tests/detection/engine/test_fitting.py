"""Sizes from the data, and the batch from data and memory: INPUT.AUTO_SIZE and SOLVER.AUTO_BATCH."""

from __future__ import annotations

from pathlib import Path

import pytest

import detection
from backbone.engine.config import dump
from detection.data.sets import build_set
from detection.engine import fitting
from detection.engine.fitting import fit_to_data

CONFIG = "finetune_faster_rcnn_r50_fpn.yaml"


def images(number: int, width: int, height: int):
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": width, "height": height} for i in range(number)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(number)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return build_set(data, name="it", folder=Path())


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(fitting, "_free_bytes", lambda config: 40 * 2**30)
    return detection.get_config(CONFIG, ["MODEL.DEVICE", "cpu"])


@pytest.mark.parametrize(
    ("size", "train", "test"),
    [
        ((640, 480), (480, 600), (600, 1000)),
        ((1920, 1080), (640, 800), (800, 1333)),
        ((64, 64), (205, 256), (256, 427)),
    ],
)
def test_small_images_are_made_a_quarter_larger_and_no_more(config, size, train, test):
    inputs = fit_to_data(config, images(50, *size), set(), None)[0].INPUT
    assert (min(inputs.MIN_SIZE_TRAIN), max(inputs.MIN_SIZE_TRAIN)) == train
    assert test == (inputs.MIN_SIZE_TEST, inputs.MAX_SIZE_TEST)
    assert test[1] == inputs.MAX_SIZE_TRAIN


@pytest.mark.parametrize(
    ("number", "free", "batch"), [(20, 40, 2), (205, 40, 4), (5000, 40, 13), (5000, 80, 16), (5000, 1, 1)]
)
def test_the_batch_is_what_data_and_memory_allow(config, monkeypatch, number, free, batch):
    monkeypatch.setattr(fitting, "_free_bytes", lambda config: free * 2**30)
    fitted, notes = fit_to_data(config, images(number, 1920, 1080), set(), None)
    assert batch == fitted.SOLVER.IMS_PER_BATCH
    assert any(f"{free}.0 GiB" in note for note in notes)


def test_given_keys_and_a_run_that_goes_on_keep_theirs(config, tmp_path):
    given = {"INPUT.MIN_SIZE_TEST", "SOLVER.IMS_PER_BATCH"}
    assert fit_to_data(config, images(205, 640, 480), given, None) == (config, [])
    fitted, _ = fit_to_data(config, images(205, 640, 480), set(), None)
    (tmp_path / "config.yaml").write_text(dump(fitted))
    again, notes = fit_to_data(config, images(900, 1920, 1080), set(), tmp_path)
    assert (again, notes) == (fitted, [])

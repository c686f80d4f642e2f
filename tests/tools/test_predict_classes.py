"""tools/predict.py with classifiers: classes as JSON and CSV, Grad-CAM pictures; flags of other tasks are refused."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
import torch

import backbone


@pytest.fixture
def predict(tool, tmp_path):
    """Call tools/predict.py with a classifier of three classes on two images."""
    torch.manual_seed(0)
    network = backbone.create("resnet18", num_classes=3, norm="bn")
    sizes = {"INPUT.TEST_SIZE": 32, "INPUT.TEST_SHORTER_SIDE": 40}
    backbone.save_weights(
        network, tmp_path / "a.safetensors", metadata={"classes": ["cat", "dog", "owl"], "test": sizes}
    )
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        picture = np.random.default_rng(ord(name[0])).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / name), picture)

    def call(*arguments: object, weights: object = tmp_path / "a.safetensors"):
        given = (
            "--weights",
            weights,
            "--input",
            tmp_path / "photos",
            "--output",
            tmp_path / "found",
            "--device",
            "cpu",
        )
        return tool("predict.py", *given, *arguments)

    return call


def test_classes_of_files(predict, tmp_path):
    predict("--top", 2, "--grad-cam").fine("2 images", "pictures, predictions.json and predictions.csv in")
    found = {path.name for path in (tmp_path / "found").iterdir()}
    assert found == {"predictions.json", "predictions.csv", "a_grad_cam.jpg", "b_grad_cam.jpg"}
    record = json.loads((tmp_path / "found" / "predictions.json").read_text())
    rows = list(csv.DictReader((tmp_path / "found" / "predictions.csv").open()))
    assert [(row["image"], row["rank"]) for row in rows] == [(f"{name}.png", rank) for name in "ab" for rank in "12"]
    assert [row["class"] for row in rows] == [
        guess["class"] for image in record["images"] for guess in image["classes"]
    ]
    expected = backbone.load_classifier(tmp_path / "a.safetensors", "cpu")(tmp_path / "photos" / "b.png")
    assert (
        float(rows[2]["score"]) == pytest.approx(expected.score, abs=1e-6) and rows[2]["class"] == expected.class_name
    )


def test_mistakes(predict, tmp_path):
    predict("--score", 0.5).mistake("--score is for detection", "a network for classification")
    predict("--top", 0).mistake("--top 0: give the number of classes")
    predict("--config", "x.yaml").mistake("a classifier needs none")
    predict("--grad-cam", "--no-pictures").mistake("give one of them")
    predict("TEST.PROTOCOL", "2crop").mistake("TEST.PROTOCOL is '2crop'; one of single, 1crop, 10crop, dense")
    backbone.save_weights(backbone.create("resnet18"), tmp_path / "bare.pth")
    predict("--top", 3, weights=tmp_path / "bare.pth").mistake("--top is for classification")
    assert not (tmp_path / "found").exists()

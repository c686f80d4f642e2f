"""Predictions as YOLO, CSV and Label Studio's tasks, compared with the boxes that they are of."""

from __future__ import annotations

import csv
import json

import pytest

from detection.inference.saving import FORMS, save_as

IMAGES = [
    {"id": 4, "file_name": "a.jpg", "width": 200, "height": 100},
    {"id": 9, "file_name": "sub dir/b.png", "width": 50, "height": 80},
]
NAMES = {3: "cat", 7: "dog, small"}
RECORDS = [
    {"image_id": 4, "category_id": 7, "bbox": [20.0, 10.0, 50.0, 40.0], "score": 0.9},
    {"image_id": 4, "category_id": 3, "bbox": [0.0, 0.0, 200.0, 100.0], "score": 0.5},
    {"image_id": 4, "category_id": 3, "bbox": [1.0, 1.0, 2.0, 2.0], "score": 0.49},
]


@pytest.fixture
def output(tmp_path):
    found = [(image, [record for record in RECORDS if record["image_id"] == image["id"]]) for image in IMAGES]
    save_as(FORMS, tmp_path, lambda: iter(found), NAMES, 0.5)
    return tmp_path


def test_yolo_has_shares_of_the_image_and_a_file_for_each_image(output):
    lines = (output / "labels/a.txt").read_text().splitlines()
    assert [list(map(float, line.split())) for line in lines] == [
        [1, 45 / 200, 30 / 100, 50 / 200, 40 / 100, 0.9],
        [0, 0.5, 0.5, 1, 1, 0.5],
    ]
    assert (output / "labels/sub dir/b.txt").read_text() == ""
    assert (output / "classes.txt").read_text() == "cat\ndog, small\n"


def test_csv_has_corners_in_pixels(output):
    with open(output / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["class"], float(row["score"])) for row in rows] == [
        ("a.jpg", "dog, small", 0.9),
        ("a.jpg", "cat", 0.5),
    ]
    assert [float(rows[0][key]) for key in ("x1", "y1", "x2", "y2")] == [20, 10, 70, 50]


def test_label_studio_has_percent_and_the_size_of_the_image(output):
    first, second = json.loads((output / "label_studio.json").read_text())
    assert second == {
        "data": {"image": "/data/local-files/?d=sub%20dir/b.png"},
        "predictions": [{"model_version": "resnet-detection", "score": 0.0, "result": []}],
    }
    result = first["predictions"][0]["result"][0]
    value = result.pop("value")
    assert value.pop("rectanglelabels") == ["dog, small"] and value.pop("rotation") == 0
    assert value == pytest.approx({"x": 10, "y": 10, "width": 25, "height": 40})
    assert (result["original_width"], result["original_height"], result["type"]) == (200, 100, "rectanglelabels")
    assert first["predictions"][0]["score"] == pytest.approx(0.7)

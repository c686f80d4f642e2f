"""The benchmark of the loader: both mappers do the same work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.data.datasets import load_coco_json

from backbone.common.errors import DataError
from benchmarks import loader
from detection.data.catalog import locate
from detection.data.sets import build_set

FEW = 4
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(loader, "MOST", FEW)


def test_records_are_those_of_detectron2(shared_data):
    data, folder = loader.read_records(shared_data)
    source = locate(loader.SET, shared_data)
    expected = load_coco_json(str(source.json_file), str(source.image_folder), loader.SET)
    by_id = {record["image_id"]: record for record in expected}
    records = loader.detectron2_records(data, folder)
    assert len(records) == FEW
    for record in records:
        other = by_id[record["image_id"]]
        assert {**record, "annotations": None} == {**other, "annotations": None}
        assert len(record["annotations"]) == len(other["annotations"]) > 0
        for one, peer in zip(record["annotations"], other["annotations"]):
            assert all(one[key] == peer[key] for key in ("bbox", "bbox_mode", "category_id", "iscrowd"))


@pytest.mark.parametrize("size", loader.SIZES)
def test_mappers_return_the_same(shared_data, size):
    data, folder = loader.read_records(shared_data)
    images = build_set(data, name="coco", folder=folder, masks=True)
    ours = loader.our_mapper(images, size, flip=False)
    peer = loader.detectron2_mapper(size, masks=True, flip=False)
    records = loader.detectron2_records(data, folder)
    for index, record in enumerate(records):
        sample, expected = ours(index), peer(record)
        assert sample["image"].shape == expected["image"].shape
        assert sample["image"].dtype == expected["image"].dtype
        assert torch.equal(sample["instances"].gt_classes, expected["instances"].gt_classes)
        assert len(sample["instances"].gt_masks) == len(expected["instances"].gt_masks)
    mean, largest = loader.apart(images, records, size)
    assert mean < 0.02
    assert largest <= 3


def test_section(shared_data, monkeypatch):
    monkeypatch.setattr(loader, "SIZES", ((800, 1333),))
    section = loader.measure(shared_data, rounds=1)
    assert [row[1] for row in section.rows] == [loader.PEER, loader.OURS] * 2
    for row in section.rows[1::2]:
        assert row[4] == section.figures[row[0]]["times_detectron2"] > 1
    assert set(section.figures["800/1333"]["profile"]) > {"read and decode", "annotations"}


def test_missing_images(tmp_path: Path):
    with pytest.raises(DataError, match="--data-root"):
        loader.read_records(tmp_path)
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "train2017").mkdir()
    images = '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1}], "categories": []}'
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").write_text(images)
    with pytest.raises(DataError, match="none of the images"):
        loader.read_records(tmp_path)

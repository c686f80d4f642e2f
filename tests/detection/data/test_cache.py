"""Sets that are kept as arrays, against the same sets read from their JSON."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from backbone.common.errors import DataError
from detection import get_config
from detection.data.cache import ARRAYS, LEAST_BYTES, Wanted, load_cached, read_set, write_set
from detection.data.segmentations import Segmentations
from detection.data.sets import DetectionSet, build_set
from detection.engine.datasets import load_sets

POLYGON = [[1.5, 2.25, 9.0, 2.0, 9.0, 8.125]]


class Example:
    """Two images in a folder, their JSON, and how often it was read."""

    def __init__(self, root: Path) -> None:
        self.images, self.json, self.cache = root / "images", root / "a.json", root / "cache"
        self.builds = 0
        self.images.mkdir()
        annotations = [
            {"id": number, "image_id": 7, "category_id": 1, "bbox": [1, 2, 8, 6], "segmentation": POLYGON, "iscrowd": 0}
            for number in (1, 2)
        ]
        self.data = {
            "images": [{"id": id, "width": 60, "height": 40, "file_name": f"ö{id}.png"} for id in (9, 7)],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": annotations,
        }
        for image in self.data["images"]:
            (self.images / image["file_name"]).touch()
        self.json.write_text(json.dumps(self.data))
        self.wanted = Wanted([self.json], [self.images], ["settings"])

    def build(self) -> DetectionSet:
        self.builds += 1
        return build_set(json.loads(self.json.read_text()), name="a", folder=self.images, masks=True)

    def load(self) -> DetectionSet:
        return load_cached(self.wanted, str(self.cache), self.build)

    @property
    def file(self) -> Path:
        (file,) = self.cache.iterdir()
        return file


@pytest.fixture
def example(tmp_path) -> Example:
    return Example(tmp_path)


def assert_same(found: DetectionSet, expected: DetectionSet) -> None:
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if name in ARRAYS:
            assert value.dtype == other.dtype and np.array_equal(value, other), name
        elif isinstance(value, Segmentations):
            for part, array in vars(value).items():
                assert array.dtype == getattr(other, part).dtype and np.array_equal(array, getattr(other, part)), part
        else:
            assert type(value) is type(other) and value == other, name


def test_a_set_is_read_once_and_mapped(example):
    first, second = example.load(), example.load()
    assert example.builds == 1
    for found in (first, second):
        assert_same(found, example.build())
        with pytest.raises(ValueError):
            found.boxes[:] = 0
    other = Wanted([example.json], [example.images], ["other settings"])
    load_cached(other, str(example.cache), example.build)
    assert example.builds == 4 and len(list(example.cache.iterdir())) == 2


def test_changed_annotations_are_read_anew(example):
    example.load()
    before = example.json.stat()
    example.json.write_text(example.json.read_text().replace('"cat"', '"dog"'))
    os.utime(example.json, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert example.json.stat().st_size == before.st_size
    assert example.load().classes == ["dog"] and example.load().classes == ["dog"] and example.builds == 2


def test_a_missing_image_goes_to_the_check_of_the_data(example):
    example.load()
    (example.images / "ö9.png").unlink()
    example.load()
    assert example.builds == 2


@pytest.mark.parametrize("damage", ["a bit", "cut", "empty", "pickle", "zeros", "folder"])
def test_a_damaged_file_is_written_anew(example, damage, caplog, tmp_path):
    expected = example.load()
    content = bytearray(example.file.read_bytes())
    path, ran = example.file, tmp_path / "ran"
    if damage == "a bit":
        content[-9] ^= 1

    class Bad:
        def __reduce__(self):
            return Path.touch, (ran,)

    changed = {"cut": content[:-40], "empty": b"", "pickle": pickle.dumps(Bad()), "zeros": bytes(len(content))}
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(changed.get(damage, content))
    with caplog.at_level(logging.INFO):
        found = example.load()
    assert_same(found, expected)
    assert example.builds == 2 and not ran.exists()
    assert any(str(path) in record.getMessage() for record in caplog.records)
    if damage != "folder":
        example.load()
        assert example.builds == 2 and list(example.cache.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_is_done_without(example, caplog):
    example.cache.write_text("a file")
    assert_same(example.load(), example.build())
    assert "--data-cache" in caplog.text


def test_small_files_are_not_cached_unless_a_folder_is_named(example, monkeypatch):
    monkeypatch.setenv("RESNET_DETECTION_CACHE", str(example.cache))
    assert example.wanted.path("off") is None and example.wanted.path("auto") is None
    os.truncate(example.json, LEAST_BYTES)
    assert example.wanted.path("auto").parent == example.cache / "sets"


def test_two_processes_at_once(example):
    images, path, children = example.build(), example.cache / "a.safetensors", []
    for _ in range(2):
        if not (child := os.fork()):
            status = 1
            try:
                for _ in range(20):
                    write_set(path, images, "content")
                    assert len(read_set(path, "content", whole=True)) == 2
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert list(example.cache.iterdir()) == [path]


@pytest.mark.parametrize("masks", [False, True])
def test_sets_of_a_config_are_those_of_the_json(tmp_path, masks):
    sets = []
    for cache in ("off", tmp_path, tmp_path):
        config = get_config("mini_faster_rcnn_r18.yaml", ["DATASETS.CACHE", str(cache), "MODEL.MASK_ON", masks])
        sets.append(load_sets(config, training=True))
    for cached in sets[1:]:
        assert_same(cached.train, sets[0].train)
        (found,), (expected,) = cached.test, sets[0].test
        assert_same(found.images, expected.images)
        assert found.kinds == expected.kinds == (("bbox", "segm") if masks else ("bbox",)) and found.has_truth
        for kind, truth in expected.ground_truth.items():
            assert np.array_equal(truth.boxes, found.ground_truth[kind].boxes)
            assert truth.segmentations == found.ground_truth[kind].segmentations
    with pytest.raises(DataError, match="other annotations"):
        read_set(next(tmp_path.iterdir()), "0")

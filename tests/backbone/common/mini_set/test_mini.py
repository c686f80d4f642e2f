"""The built-in mini set, read back with pycocotools."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from backbone.common.errors import DataError
from backbone.common.mini_set import CLASSES, build, mini_set_root, write_mini_set
from backbone.common.mini_set.masks import polygons, run_lengths, without_specks
from backbone.common.mini_set.scene import SIZES

SMALL = {"train": 26, "val": 8}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    write_mini_set(root, **SMALL)
    return root


@pytest.fixture(scope="module")
def train(small_set: Path) -> COCO:
    return COCO(str(small_set / "annotations/instances_train.json"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder where a set is of three images, to be drawn at once."""
    monkeypatch.setenv("RESNET_DETECTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "write_mini_set", lambda root, seed: write_mini_set(root, seed=seed, train=2, val=1))
    return tmp_path / "cache"


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _objects(train: COCO) -> list[dict]:
    return [annotation for annotation in train.dataset["annotations"] if not annotation["iscrowd"]]


def test_same_seed_gives_the_same_bytes(tmp_path: Path):
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        write_mini_set(tmp_path / name, seed=seed, train=4, val=2)
    first, again, other = (_bytes(tmp_path / name) for name in ("first", "again", "other"))
    assert len(first) == 8
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_an_image_does_not_depend_on_how_many_there_are(small_set: Path, tmp_path: Path):
    write_mini_set(tmp_path, train=3, val=1)
    larger = _bytes(small_set)
    images = {name: content for name, content in _bytes(tmp_path).items() if name.endswith(".jpg")}
    assert len(images) == 4
    assert all(larger[name] == content for name, content in images.items())
    assert larger["train/000001.jpg"] != larger["val/000001.jpg"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_files_match_the_annotations(small_set: Path, split: str):
    data = json.loads((small_set / f"annotations/instances_{split}.json").read_text())
    assert data["info"] and data["licenses"]
    assert [category["id"] for category in data["categories"]] == list(range(1, len(CLASSES) + 1))
    assert tuple(category["name"] for category in data["categories"]) == CLASSES
    assert all(category["supercategory"] for category in data["categories"])
    assert len(data["images"]) == len({image["id"] for image in data["images"]}) == SMALL[split]
    assert {image["file_name"] for image in data["images"]} == {path.name for path in (small_set / split).iterdir()}
    for image in data["images"]:
        assert cv2.imread(str(small_set / split / image["file_name"])).shape == (image["height"], image["width"], 3)
    identities = [annotation["id"] for annotation in data["annotations"]]
    assert len(set(identities)) == len(identities) and min(identities) > 0


def test_sizes_classes_empty_images_and_crowds(train: COCO):
    assert {(image["width"], image["height"]) for image in train.dataset["images"]} == set(SIZES)
    assert {annotation["category_id"] for annotation in _objects(train)} == set(train.getCatIds())
    counts = [len(train.getAnnIds(image)) for image in train.getImgIds()]
    assert counts.count(0) == 2
    assert max(counts) <= 7
    crowds = train.loadAnns(train.getAnnIds(iscrowd=True))
    assert len(crowds) == 2
    assert all(isinstance(crowd["segmentation"], dict) for crowd in crowds)


def test_masks_areas_and_boxes_agree(train: COCO):
    for annotation in train.dataset["annotations"]:
        mask = train.annToMask(annotation)
        # A polygon's sides may cut the corners of pixels along its outline.
        slack = 0 if annotation["iscrowd"] else 3 + 0.06 * annotation["area"]
        assert abs(int(mask.sum()) - annotation["area"]) <= slack
        x, y, width, height = annotation["bbox"]
        assert all(isinstance(value, float) for value in annotation["bbox"])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.array(found) - (x, y, x + width, y + height)).max() <= (0 if annotation["iscrowd"] else 1)


def test_boxes_overlap_and_visible_masks_do_not(train: COCO):
    shared = total = boxes_that_overlap = 0
    for image in train.getImgIds():
        annotations = [a for a in train.imgToAnns[image] if not a["iscrowd"]]
        if not annotations:
            continue
        cover = np.sum([train.annToMask(annotation) for annotation in annotations], axis=0)
        shared, total = shared + int((cover > 1).sum()), total + int((cover > 0).sum())
        boxes = np.array([annotation["bbox"] for annotation in annotations])
        overlap = coco_mask.iou(boxes, boxes, [0] * len(boxes)) - np.eye(len(boxes))
        boxes_that_overlap += int((overlap.max(axis=1) > 0.05).sum())
    assert boxes_that_overlap >= 5
    assert shared < 0.005 * total


def test_objects_differ_in_size(train: COCO):
    sides = np.array([max(annotation["bbox"][2:]) for annotation in _objects(train)])
    assert sides.min() < 24 and sides.max() > 70
    assert np.mean(sides >= 20) > 0.7


def test_polygons_of_a_mask_with_holes_and_parts():
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (30, 30), 24, 1, -1)
    cv2.circle(mask, (22, 30), 6, 0, -1)
    cv2.circle(mask, (40, 34), 5, 0, -1)
    mask[5:50, 60:72] = 1
    mask[20:30, 64:68] = 0
    found = polygons(mask.astype(bool))
    assert len(found) >= 4
    back = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(found, *mask.shape)))
    assert np.logical_xor(back, mask).sum() <= 0.03 * mask.sum()
    assert not back[30, 22] and not back[34, 40] and not back[25, 66]


@pytest.mark.parametrize("corner", [0, 1])
def test_run_lengths_are_those_of_coco(corner: int):
    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    mask[0, 0] = corner
    runs = run_lengths(mask)
    assert sum(runs["counts"]) == mask.size
    assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(runs, *mask.shape)), mask)


def test_specks_are_dropped():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[15:17, 15:17] = True
    assert without_specks(mask).sum() == 100


@pytest.mark.slow
def test_whole_set_is_balanced_and_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RESNET_DETECTION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = mini_set_root()
    monkeypatch.setattr(build, "draw_scene", None)
    assert mini_set_root() == root
    assert root.parent == tmp_path / "resnet-detection"
    for split, images in (("train", 200), ("val", 50)):
        coco = COCO(str(root / f"annotations/instances_{split}.json"))
        empty = sum(not coco.getAnnIds(image) for image in coco.getImgIds())
        crowded = len({annotation["image_id"] for annotation in coco.loadAnns(coco.getAnnIds(iscrowd=True))})
        assert len(coco.imgs) == images
        assert 0.05 <= empty / images <= 0.07 and 0.04 <= crowded / images <= 0.07
        frequencies = np.bincount([annotation["category_id"] for annotation in _objects(coco)])[1:]
        assert frequencies.min() > 0.7 * frequencies.mean() and frequencies.max() < 1.3 * frequencies.mean()


def test_cache_is_drawn_once(cache: Path):
    root = mini_set_root(3)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert mini_set_root(3) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert mini_set_root(4) != root
    assert sorted(path.name for path in cache.iterdir()) == sorted([root.name, mini_set_root(4).name])


def test_two_at_once_end_with_one_whole_set(cache: Path, monkeypatch: pytest.MonkeyPatch):
    together = threading.Barrier(3)

    def write(root: Path, seed: int) -> None:
        together.wait(timeout=30)
        write_mini_set(root, seed=seed, train=2, val=1)
        together.wait(timeout=30)

    monkeypatch.setattr(build, "write_mini_set", write)
    results = []
    threads = [threading.Thread(target=lambda: results.append(mini_set_root())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and len(set(results)) == 1
    assert list(cache.iterdir()) == [results[0]]
    assert len(_bytes(results[0])) == 5


def test_what_a_killed_process_leaves_is_harmless(cache: Path):
    name = f"mini-v{build.VERSION}-seed0"
    old, young = cache / f".{name}-1-old", cache / f".{name}-2-young"
    for folder in (old, young):
        (folder / "train").mkdir(parents=True)
    os.utime(old, (0, 0))
    assert len(_bytes(mini_set_root())) == 5
    assert young.exists() and not old.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESNET_DETECTION_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="RESNET_DETECTION_CACHE") as error:
        mini_set_root()
    assert "\n" not in str(error.value) and str(tmp_path / "file") in str(error.value)


def test_a_full_disk_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DataError, match="No space left"):
        mini_set_root()
    assert list(cache.iterdir()) == []


def test_a_set_without_its_annotations(cache: Path):
    root = mini_set_root()
    (root / "annotations/instances_val.json").unlink()
    with pytest.raises(DataError, match=r"instances_val\.json is missing; delete"):
        mini_set_root()


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"train": -1}, {"val": -2}])
def test_negative_arguments(tmp_path: Path, wrong: dict[str, int]):
    with pytest.raises(DataError, match=f"{next(iter(wrong))} must be 0 or more"):
        write_mini_set(tmp_path, **wrong)

"""Files of proposals: read back, refused where they are hostile or of other images; proposals in training samples."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_proposals
from detectron2.structures import BoxMode

from backbone.common.errors import DataError
from detection import get_config
from detection.data.mapper import Mapper, Resize
from detection.data.proposals import Proposals, load_proposals, pack, save_proposals
from detection.data.sets import DetectionSet
from detection.engine.datasets import load_sets


@pytest.fixture(scope="module")
def images() -> DetectionSet:
    return load_sets(get_config("mini_faster_rcnn_r18.yaml"), training=True).train


@pytest.fixture(scope="module")
def proposals(images) -> Proposals:
    """Some boxes an image, none in the third."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(len(images)):
        corners = rng.random((0 if index == 2 else 7, 2, 2)) * images.size(index)
        found.append(
            np.concatenate([corners.min(1), corners.max(1) + 1], axis=1).clip(0, np.tile(images.size(index), 2))
        )
    return pack(found)


def test_read_back(images, proposals, tmp_path):
    save_proposals(tmp_path / "p.npz", proposals, images)
    again = load_proposals(tmp_path / "p.npz", images)
    assert np.array_equal(again.starts, proposals.starts)
    assert np.array_equal(again.boxes, proposals.boxes)
    assert [len(again.of(index)) for index in range(4)] == [7, 7, 0, 7]
    assert os.listdir(tmp_path) == ["p.npz"]


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_inside_is_not_run(images, proposals, tmp_path):
    mark = tmp_path / "ran"
    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb(mark)
    np.savez(tmp_path / "p.npz", image_ids=images.image_ids, starts=proposals.starts, boxes=bomb)
    with pytest.raises(DataError, match=r"p\.npz"):
        load_proposals(tmp_path / "p.npz", images)
    assert not mark.exists()
    bomb.dump(tmp_path / "q.npz")
    with pytest.raises(DataError, match=r"q\.npz"):
        load_proposals(tmp_path / "q.npz", images)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing", b"\x93NUMPY\x01\x00"])
def test_what_is_no_such_file_is_named(content, images, tmp_path):
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.npz.*--resume"):
        load_proposals(tmp_path / "p.npz", images)


def test_broken_arrays_and_other_images_are_named(images, proposals, tmp_path):
    path = tmp_path / "p.npz"
    with pytest.raises(DataError, match="no proposals"):
        load_proposals(path, images)
    wrong = {
        "image_ids": images.image_ids[::-1],
        "starts": proposals.starts + 1,
        "boxes": np.full_like(proposals.boxes, np.nan),
    }
    for key, value in wrong.items():
        np.savez(
            path, **{"image_ids": images.image_ids, "starts": proposals.starts, "boxes": proposals.boxes, key: value}
        )
        with pytest.raises(DataError, match=r"p\.npz"):
            load_proposals(path, images)
    save_proposals(path, proposals, images)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"p\.npz"):
        load_proposals(path, images)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    path.write_bytes(changed)
    with pytest.raises(DataError, match=r"p\.npz"):
        load_proposals(path, images)


class Coin:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_samples_hold_the_proposals_as_detectron2_places_them(flip, images, proposals):
    mapper = Mapper(images, resize=Resize((80,), 240), channel_order="RGB", flip=flip, proposals=proposals)
    for index in range(4):
        sample = mapper(index, Coin(0.0))
        height, width = sample["image"].shape[1:]
        old_width, old_height = images.size(index)
        moves = [T.ResizeTransform(old_height, old_width, height, width)]
        if flip != "none":
            moves.append(T.HFlipTransform(width) if flip == "horizontal" else T.VFlipTransform(height))
        boxes = proposals.of(index)
        record = {"proposal_boxes": boxes, "proposal_objectness_logits": np.zeros(len(boxes), dtype=np.float32)}
        record["proposal_bbox_mode"] = BoxMode.XYXY_ABS
        transform_proposals(record, (height, width), T.TransformList(moves), proposal_topk=100)
        found, expected = sample["proposals"], record["proposals"]
        assert found.image_size == expected.image_size
        assert torch.allclose(found.proposal_boxes.tensor, expected.proposal_boxes.tensor, atol=1e-3)
        assert torch.equal(found.objectness_logits, expected.objectness_logits)


def test_samples_without_given_proposals_have_none(images):
    mapper = Mapper(images, resize=Resize((80,), 240), channel_order="RGB")
    assert "proposals" not in mapper(0)

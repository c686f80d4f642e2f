"""Tiles against objects of known place, supervision's InferenceSlicer, pycocotools and the detector itself."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

import detection
from backbone import ConfigError
from detection.inference.mask_crops import MaskCrops, crop_of
from detection.inference.tiles import TiledModel, Tiling

detection.register()

from small_detectors import photo, save_detector  # noqa: E402

CLASSES = 3


class Finds(nn.Module):
    """A detector that finds each patch of one colour, cut off where its image ends; the colour has class and number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, samples):
        return [{"instances": self.found(sample["image"].numpy())} for sample in samples]

    @staticmethod
    def found(image: np.ndarray) -> Instances:
        boxes, labels, scores, masks, points = [], [], [], [], []
        for value in np.unique(image[image > 0]):
            rows, columns = np.nonzero(image == value)
            boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            labels.append(int(value) % CLASSES)
            # As of a real one, the score falls with what is cut off.
            scores.append(min(0.99, 0.5 + len(rows) / 1e6))
            masks.append(image == value)
            points.append([(columns.min(), rows.min(), 0.5), (columns.max() + 1, rows.max() + 1, 0.5)])
        return Instances(
            image.shape,
            pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
            scores=torch.tensor(scores),
            pred_classes=torch.tensor(labels, dtype=torch.int64),
            pred_masks=torch.from_numpy(np.array(masks, bool).reshape(-1, *image.shape)),
            pred_keypoints=torch.tensor(points, dtype=torch.float32).reshape(-1, 2, 3),
        )


def sample_of(image: np.ndarray, order: str) -> dict:
    return {"image": torch.from_numpy(image.copy()), "height": image.shape[0], "width": image.shape[1]}


def tiled(image: np.ndarray, size: int, overlap: float) -> Instances:
    model = TiledModel(Finds(), sample_of, Tiling(size, overlap), "L", 2)
    with torch.inference_mode():
        return model([model.sample(image, "L")])[0]["instances"]


def scene(largest: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with boxes up to a size that do not touch, and these boxes (N, 4) by their colour."""
    random, image, boxes = np.random.default_rng(seed), np.zeros((700, 950), np.int32), []
    for _ in range(400):
        width, height = random.integers(12, largest, 2)
        x, y = random.integers(0, 950 - width), random.integers(0, 700 - height)
        if not image[max(0, y - 3) : y + height + 3, max(0, x - 3) : x + width + 3].any():
            boxes.append((x, y, x + width, y + height))
            image[y : y + height, x : x + width] = len(boxes)
    return image, np.array(boxes)


@pytest.mark.parametrize(
    ("largest", "size", "overlap"), [(50, 256, 0.25), (300, 256, 0.25), (420, 200, 0.1), (90, 320, 0.5)]
)
def test_each_object_is_found_once_and_whole(largest, size, overlap):
    """Also where it lies in four tiles, and where it is larger than what two tiles share, or than a tile."""
    coco_mask = pytest.importorskip("pycocotools.mask")
    image, boxes = scene(largest, seed=size)
    found = tiled(image, size, overlap)
    order = np.lexsort(found.pred_boxes.tensor.numpy().T)
    expected = np.lexsort(boxes.astype(float).T)
    assert len(boxes) > 10 and np.array_equal(found.pred_boxes.tensor.numpy()[order], boxes[expected])
    assert np.array_equal(found.pred_classes.numpy()[order], (expected + 1) % CLASSES)
    assert (found.scores[:-1] >= found.scores[1:]).all()
    masks = found.pred_masks
    for place, rle in zip(np.argsort(order), masks.encoded()):
        whole = image == expected[place] + 1
        assert rle["counts"] == coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(masks[int(order[0])], image == expected[0] + 1)
    assert len(masks[found.scores > 2]) == 0 and masks[np.array([1, 0])].shape == (2, 700, 950)
    points = found.pred_keypoints.numpy()[order]
    if largest < size * overlap:
        assert np.array_equal(points[:, :, :2].reshape(-1, 4), boxes[expected])


def test_objects_of_one_tile_are_never_merged():
    """A small object in front of a large one, both seen by two tiles, one of them in part: two objects."""
    image, nested = np.zeros((100, 180), np.int32), [(60, 10, 130, 90), (75, 30, 95, 60)]

    class Nested(Finds):
        def found(self, image):  # the class is the same
            result = super().found(image)
            result.pred_classes[:] = 0
            return result

    for number, (x0, y0, x1, y1) in enumerate(nested, 1):
        image[y0:y1, x0:x1] = number
    model = TiledModel(Nested(), sample_of, Tiling(100, 0.4), "L", 1)
    found = model([model.sample(image, "L")])[0]["instances"]
    assert sorted(found.pred_boxes.tensor.tolist()) == sorted(map(list, nested))


def test_supervision_finds_the_same():
    """Where no object is larger than what tiles share, its NMS keeps what is kept here; of larger ones, parts."""
    supervision = pytest.importorskip("supervision")

    def callback(image: np.ndarray):
        found = Finds.found(image[:, :, 0].astype(np.int32))
        return supervision.Detections(
            found.pred_boxes.tensor.numpy(), confidence=found.scores.numpy(), class_id=found.pred_classes.numpy()
        )

    for largest in (60, 200):
        image, boxes = scene(largest, seed=3)
        assert len(boxes) < 256
        slicer = supervision.InferenceSlicer(callback, slice_wh=256, overlap_wh=64, overlap_metric="IOS")
        theirs = slicer(np.repeat(image[:, :, None], 3, axis=2).astype(np.uint8))
        ours = tiled(image, 256, 0.25).pred_boxes.tensor.numpy()
        assert {*map(tuple, ours)} == {*map(tuple, boxes.tolist())}
        assert ({*map(tuple, theirs.xyxy)} == {*map(tuple, ours)}) == (largest == 60)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (640, 640), (641, 640), (1152, 1000), (5000, 3)])
def test_tiles_cover_the_image_and_share_enough(width, height):
    tiling, seen = Tiling(640, 0.2), np.zeros((height, width), np.int32)
    tiles = tiling.tiles(width, height)
    for x0, y0, x1, y1 in tiles:
        assert (x1 - x0, y1 - y0) == (min(640, width), min(640, height))
        seen[y0:y1, x0:x1] += 1
    assert seen.min() == 1 and len(set(tiles)) == len(tiles)
    columns = sorted({tile[0] for tile in tiles})
    assert all(640 - (after - before) >= 128 for before, after in zip(columns, columns[1:]))


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("given")
    checkpoint = save_detector(folder / "model.pth", ["cat", "dog", "owl"], [17, 18, 90])
    small = ["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96, "DATALOADER.NUM_WORKERS", 0]
    cv2.imwrite(str(folder / "large.png"), photo(100, 150, 1))
    return SimpleNamespace(folder=folder, detector=detection.load(checkpoint, "cpu", overrides=small))


def test_an_image_that_fits_into_a_tile_is_detected_on_as_without(given):
    image = photo(60, 80, 0)
    plain, found = given.detector(image, bgr=True), given.detector(image, bgr=True, tile=80)
    assert len(plain) > 0 and isinstance(found.masks, np.ndarray)
    for part in ("boxes", "scores", "labels", "masks"):
        assert np.array_equal(getattr(plain, part), getattr(found, part))


def test_tiles_are_detected_on_as_images_of_their_own(given, tmp_path):
    """From Python and by predict; without a neighbour there is nothing to merge."""
    from detection.inference.predict import predict

    image = cv2.imread(str(given.folder / "large.png"))
    found = given.detector(given.folder / "large.png", tile=80, overlap=0)
    tiles = Tiling(80, 0).tiles(150, 100)
    assert tiles == [(0, 0, 80, 80), (70, 0, 150, 80), (0, 20, 80, 100), (70, 20, 150, 100)]
    alone = [given.detector(image[y0:y1, x0:x1], bgr=True) for x0, y0, x1, y1 in tiles]
    # The surest object of the tile that has the surest one is at its place.
    best = max(range(4), key=lambda row: alone[row].scores[0])
    assert found.scores[0] == alone[best].scores[0] and 0 < len(found) <= sum(map(len, alone))
    predict(given.detector, str(given.folder / "large.png"), tmp_path, tile=80, overlap=0.0)
    from detection.inference.lines import coco_records, read_detections

    (line,) = read_detections(tmp_path)
    assert coco_records(line) == found.to_coco(1)
    assert (tmp_path / "large_detections.jpg").is_file() and found.masks.shape == (len(found), 100, 150)
    assert isinstance(found.masks, MaskCrops) and found[0].mask.shape == (100, 150)


def test_wrong_values():
    for size, overlap, said in ((8, 0.2, "--tile must be 16 pixels or more"), (640, 20, "--overlap must be 0 to 0.9")):
        with pytest.raises(ConfigError, match=said):
            Tiling(size, overlap)


def test_an_empty_mask_is_an_empty_crop():
    coco_mask = pytest.importorskip("pycocotools.mask")
    full, empty = np.ones((3, 4), bool), np.zeros((3, 4), bool)
    masks = MaskCrops([[crop_of(full, (0, 0))], [crop_of(empty, (2, 1))]], (3, 4))
    for mask, rle in zip((full, empty), masks.encoded()):
        assert coco_mask.decode(rle).tolist() == mask.tolist()

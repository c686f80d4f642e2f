"""Training samples against those of detectron2's own DatasetMapper."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks
from pycocotools import mask as coco_mask

from backbone.common.errors import DataError
from backbone.common.images import resize_image
from detection.config import default_config
from detection.data.mapper import Mapper, Resize, to_tensor
from detection.data.sets import DetectionSet, build_set
from detection.data.view import resize_and_flip
from detection.inference.transform import TestMapper, TestTransform

FLIPS = ("none", "horizontal", "vertical", "both")
# detectron2 hands an array of Pillow's to torch; nothing writes to it.
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


class Coin:
    """A generator whose every draw is the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


ALWAYS, NEVER = Coin(0.0), Coin(0.99)


@pytest.fixture(scope="module")
def coco(shared_data) -> tuple[dict, Path]:
    path = shared_data / "coco" / "annotations" / "instances_val2017.json"
    return json.loads(path.read_text()), shared_data / "coco" / "val2017"


def detectron2_sample(
    images: DetectionSet, data: dict, index: int, *, shorter: int, longest: int, flip: str, mask_format: str = "polygon"
) -> dict:
    """Return detectron2's sample of an image; a flip always happens."""
    augmentations = [T.ResizeShortestEdge([shorter], longest, "choice")]
    for one in {"none": (), "both": ("horizontal", "vertical")}.get(flip, (flip,)):
        augmentations.append(T.RandomFlip(1.0, horizontal=one == "horizontal", vertical=one == "vertical"))
    mapper = DatasetMapper(
        is_train=True,
        augmentations=augmentations,
        image_format="RGB",
        use_instance_mask=images.segmentations is not None,
        instance_mask_format=mask_format,
    )
    record = data["images"][index]
    label_of = {id_: label for label, id_ in enumerate(images.category_ids)}
    annotations = []
    for annotation in data["annotations"]:
        if annotation["image_id"] == record["id"]:
            label = label_of[annotation["category_id"]]
            annotations.append({**annotation, "category_id": label, "bbox_mode": BoxMode.XYWH_ABS})
    size = {"width": record["width"], "height": record["height"]}
    return mapper({"file_name": str(images.path(index)), "annotations": annotations, **size})


def make_mapper(images: DetectionSet, *, shorter: int = 40, longest: int = 1333, **keywords) -> Mapper:
    keywords = {"channel_order": "RGB", **keywords}
    return Mapper(images, resize=Resize((shorter,), longest), **keywords)


def boxes_of(instances: Instances) -> torch.Tensor:
    return instances.gt_boxes.tensor


@pytest.mark.parametrize(
    ("shorter", "longest", "flip"),
    [(800, 1333, "horizontal"), (600, 1000, "none"), (352, 500, "horizontal"), (200, 1333, "vertical")],
)
def test_samples_equal_detectron2(coco, shorter, longest, flip):
    data, folder = coco
    images = build_set(data, name="coco", folder=folder, masks=True)
    mapper = make_mapper(images, shorter=shorter, longest=longest, flip=flip)
    upscaled, downscaled = [], []
    for index in range(0, len(images), 2):
        expected = detectron2_sample(images, data, index, shorter=shorter, longest=longest, flip=flip)
        sample = mapper(index, ALWAYS)
        assert sample["image"].shape == expected["image"].shape
        assert sample["image"].dtype == torch.uint8
        assert (sample["height"], sample["width"]) == (expected["height"], expected["width"])
        difference = (sample["image"].float() - expected["image"].float()).abs().mean().item()
        (upscaled if sample["image"].shape[1] > sample["height"] else downscaled).append(difference)

        target, peer = sample["instances"], expected["instances"]
        assert target.image_size == peer.image_size == tuple(sample["image"].shape[1:])
        assert torch.equal(target.gt_classes, peer.gt_classes)
        # One step of float32 at 1333 pixels.
        assert torch.allclose(boxes_of(target), boxes_of(peer), rtol=0, atol=1.25e-4)
        assert boxes_of(target).dtype == torch.float32
        if len(target):
            assert_same_polygons(target.gt_masks, peer.gt_masks)
        else:
            assert len(target.gt_masks) == 0
    # A level here and there; OpenCV's own resizing would be 0.2 levels off in the mean.
    assert max(upscaled + downscaled) < 0.02


def assert_same_polygons(masks: PolygonMasks, expected: PolygonMasks) -> None:
    assert len(masks) == len(expected)
    for polygons, others in zip(masks.polygons, expected.polygons):
        assert len(polygons) == len(others)
        assert all(np.allclose(one, other, rtol=0, atol=1e-4) for one, other in zip(polygons, others))


@pytest.mark.parametrize("flip", FLIPS)
def test_bitmasks_equal_detectron2(coco, flip):
    data, folder = coco
    images = build_set(data, name="coco", folder=folder, masks=True)
    mapper = make_mapper(images, shorter=300, flip=flip, mask_format="bitmask")
    for index in range(0, len(images), 5):
        expected = detectron2_sample(images, data, index, shorter=300, longest=1333, flip=flip, mask_format="bitmask")[
            "instances"
        ]
        target = mapper(index, ALWAYS)["instances"]
        assert isinstance(target.gt_masks, BitMasks)
        assert len(target) == len(expected)
        if len(target):
            assert torch.equal(target.gt_masks.tensor, expected.gt_masks.tensor.bool())


def scene(segmentations: list[object], folder: Path, *, crowd: int = 0) -> tuple[DetectionSet, dict]:
    """One image of 60 x 40 pixels with an object for each segmentation; None leaves the key out."""
    cv2.imwrite(str(folder / "1.png"), np.zeros((40, 60, 3), np.uint8))
    annotations = [
        {"id": id_, "image_id": 1, "category_id": 1, "bbox": [5, 5 + id_, 20, 20], "iscrowd": crowd}
        | ({} if segmentation is None else {"segmentation": segmentation})
        for id_, segmentation in enumerate(segmentations)
    ]
    data = {
        "images": [{"id": 1, "file_name": "1.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": annotations,
    }
    return build_set(data, name="scene", folder=folder, masks=True), data


def ellipse() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    cv2.ellipse(mask, (20, 15), (13, 6), 25, 0, 360, 1, cv2.FILLED)
    return mask


def run_lengths(kind: str) -> dict:
    """The ellipse as an RLE, compressed or as plain counts."""
    mask = ellipse()
    if kind == "compressed":
        encoded = coco_mask.encode(np.asfortranarray(mask))
        return {"size": [40, 60], "counts": encoded["counts"].decode()}
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [40, 60], "counts": np.diff([0, *edges, flat.size]).tolist()}


SQUARE = [[5, 5, 25, 5, 25, 25, 5, 25]]


@pytest.mark.parametrize("kind", ["compressed", "plain"])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_run_lengths(tmp_path, kind, mask_format):
    images, _ = scene([run_lengths(kind), SQUARE], tmp_path)
    masks = make_mapper(images, flip="none", mask_format=mask_format)(0, ALWAYS)["instances"].gt_masks
    assert isinstance(masks, BitMasks)
    assert np.array_equal(masks.tensor[0].numpy(), ellipse().astype(bool))
    assert masks.tensor[1].sum() == 400
    assert masks.tensor[1, 5:25, 5:25].all()


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("shorter", [20, 26, 80, 97])
def test_run_lengths_resized_and_flipped_equal_detectron2(tmp_path, flip, shorter):
    images, data = scene([run_lengths("compressed")], tmp_path)
    target = make_mapper(images, shorter=shorter, flip=flip, mask_format="bitmask")(0, ALWAYS)["instances"]
    expected = detectron2_sample(images, data, 0, shorter=shorter, longest=1333, flip=flip, mask_format="bitmask")
    assert torch.equal(target.gt_masks.tensor, expected["instances"].gt_masks.tensor.bool())


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("nothing", [[], None, {}, [[1, 2, 3, 4]], [[]]])
@pytest.mark.parametrize("other", [SQUARE, "rle"])
def test_object_without_a_mask_is_no_target(tmp_path, nothing, mask_format, other):
    """As with detectron2's filter_empty_instances; a polygon needs three points."""
    other = run_lengths("plain") if other == "rle" else other
    images, _ = scene([nothing, other, nothing], tmp_path)
    target = make_mapper(images, flip="none", mask_format=mask_format)(0, ALWAYS)["instances"]
    assert boxes_of(target).tolist() == [[5, 6, 25, 26]]
    assert len(target.gt_masks) == len(target.gt_classes) == 1
    images, _ = scene([nothing], tmp_path)
    assert len(make_mapper(images, mask_format=mask_format)(0, ALWAYS)["instances"]) == 0


def test_sound_polygons_beside_a_degenerate_one_stay(tmp_path):
    images, _ = scene([[[1, 2, 3, 4], *SQUARE]], tmp_path)
    masks = make_mapper(images, flip="none")(0, ALWAYS)["instances"].gt_masks
    assert [polygon.tolist() for polygon in masks.polygons[0]] == SQUARE


def test_crowds_are_no_targets(tmp_path):
    images, _ = scene([run_lengths("compressed")] * 2, tmp_path, crowd=1)
    assert len(images.boxes) == 2
    for mask_format, kind in (("polygon", PolygonMasks), ("bitmask", BitMasks)):
        target = make_mapper(images, shorter=30, mask_format=mask_format)(0, ALWAYS)["instances"]
        assert len(target) == 0
        assert boxes_of(target).shape == (0, 4)
        assert target.gt_classes.dtype == torch.int64
        assert isinstance(target.gt_masks, kind)
        assert target.image_size == (30, 45)


def test_crowds_beside_objects(coco):
    data, folder = coco
    images = build_set(data, name="coco", folder=folder)
    index = next(i for i in images.trainable() if images.crowd[images.starts[i] : images.starts[i + 1]].any())
    crowds = int(images.crowd[images.starts[index] : images.starts[index + 1]].sum())
    target = make_mapper(images, shorter=200)(index, NEVER)["instances"]
    assert len(target) == images.starts[index + 1] - images.starts[index] - crowds
    assert not target.has("gt_masks")


def test_image_without_objects(tmp_path):
    for mask_format in ("polygon", "bitmask"):
        target = make_mapper(scene([], tmp_path)[0], mask_format=mask_format)(0, ALWAYS)["instances"]
        assert len(target) == len(target.gt_masks) == 0
        assert boxes_of(target).shape == (0, 4)
        assert boxes_of(target).dtype == torch.float32


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_channel_order_and_flip_of_the_pixels(tmp_path, order, flip):
    images, _ = scene([SQUARE], tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "1.png"), pixels)
    image = make_mapper(images, flip=flip, channel_order=order)(0, ALWAYS)["image"]
    expected = pixels if order == "BGR" else pixels[:, :, ::-1]
    flipped = {"none": expected, "horizontal": expected[:, ::-1], "vertical": expected[::-1]}
    expected = {**flipped, "both": expected[::-1, ::-1]}[flip]
    assert np.array_equal(image.numpy(), expected.transpose(2, 0, 1))
    unflipped = make_mapper(images, flip=flip, channel_order=order)(0, NEVER)
    assert np.array_equal(unflipped["image"].numpy(), pixels.transpose(2, 0, 1)[:: -1 if order == "RGB" else 1])
    assert boxes_of(unflipped["instances"]).tolist() == [[5, 5, 25, 25]]


def test_flip_moves_the_box(tmp_path):
    images, _ = scene([SQUARE], tmp_path)
    moved = {flip: boxes_of(make_mapper(images, flip=flip)(0, ALWAYS)["instances"]).tolist() for flip in FLIPS}
    assert moved.pop("both") == [[35, 15, 55, 35]]
    assert moved == {"none": [[5, 5, 25, 25]], "horizontal": [[35, 5, 55, 25]], "vertical": [[5, 15, 25, 35]]}


def test_half_of_the_samples_are_flipped(tmp_path):
    images, _ = scene([SQUARE], tmp_path)
    mapper = make_mapper(images)
    left = [boxes_of(mapper(0, np.random.default_rng(seed))["instances"])[0, 0].item() for seed in range(200)]
    assert set(left) == {5, 35}
    assert 70 < left.count(35) < 130


def test_both_flips_are_drawn_each_for_itself(tmp_path):
    images, _ = scene([SQUARE], tmp_path)
    mapper = make_mapper(images, flip="both")
    boxes = [boxes_of(mapper(0, np.random.default_rng(seed))["instances"])[0, :2] for seed in range(200)]
    corners = [tuple(box.int().tolist()) for box in boxes]
    assert set(corners) == {(5, 5), (35, 5), (5, 15), (35, 15)}
    assert min(map(corners.count, set(corners))) > 30


def test_test_images_are_neither_flipped_nor_drawn_at_random(tmp_path):
    images, _ = scene([SQUARE], tmp_path)
    config = default_config()
    transform = TestTransform(config, resize=Resize((30, 50), 1000))
    sample = TestMapper(images, transform)(0)
    assert sample["image"].shape == (3, 30, 45)
    assert "instances" not in sample
    assert (sample["height"], sample["width"], sample["image_id"]) == (40, 60, 1)
    assert sample["file_name"] == str(images.path(0))


def test_record_with_a_wrong_size(tmp_path):
    images, _ = scene([SQUARE], tmp_path)
    images.sizes[0] = (61, 40)
    with pytest.raises(DataError, match="61x40"):
        make_mapper(images)(0, ALWAYS)


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (640, 360), (360, 640), (500, 375), (333, 500), (427, 427), (50, 2000)]
)
@pytest.mark.parametrize("shorter", [0, 40, 333, 600, 799, 800])
@pytest.mark.parametrize("longest", [333, 1000, 1333])
def test_target_sizes_equal_detectron2(width, height, shorter, longest):
    if shorter == 0:
        expected = (width, height)
    else:
        expected = T.ResizeShortestEdge.get_output_shape(height, width, shorter, longest)[::-1]
    assert Resize((shorter,), longest).target(width, height, shorter) == expected


def test_thin_images_keep_a_pixel():
    assert Resize((600,), 1000).target(4000, 1, 600) == (1000, 1)


def test_sampling_of_the_shorter_side():
    rng = np.random.default_rng(0)
    choice = {Resize((600, 700, 800), 1333).draw(rng) for _ in range(60)}
    assert choice == {600, 700, 800}
    both_ends = {Resize((600, 604), 1333, "range").draw(rng) for _ in range(100)}
    assert both_ends == {600, 601, 602, 603, 604}
    assert Resize((600, 700), 1333).draw(None) == 600


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.77, 1.0, 1.25, 1.6, 2.1])
def test_resizing_equals_pillow(coco, scale):
    """To a level here and there; not smoothed, these would be 5 levels off at a third of the size."""
    data, folder = coco
    apart = []
    for record in data["images"][:6]:
        image = cv2.imread(str(folder / record["file_name"]))
        width, height = int(record["width"] * scale), int(record["height"] * scale)
        expected = T.ResizeTransform(*image.shape[:2], height, width).apply_image(image)
        apart.append(np.abs(resize_image(image, width, height).astype(int) - expected).mean())
    assert np.mean(apart) < 0.02


@pytest.mark.parametrize("size", [(100, 75), (133, 300), (900, 700), (64, 48)])
@pytest.mark.parametrize("flip", FLIPS)
def test_flip_before_or_after_resizing(size, flip):
    image = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    kept = image.copy()
    expected = resize_image(image, *size)
    flipped = {"none": expected, "horizontal": expected[:, ::-1], "vertical": expected[::-1]}
    expected = {**flipped, "both": expected[::-1, ::-1]}[flip]
    flipped = resize_and_flip(image, *size, flip)
    assert flipped.shape == (size[1], size[0], 3)
    assert np.abs(flipped.astype(int) - expected).max() <= 1
    assert np.array_equal(image, kept)


def test_resizing_takes_views():
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    expected = resize_image(np.ascontiguousarray(image[:, ::-1, ::-1]), 70, 60)
    assert np.array_equal(resize_image(image[:, ::-1, ::-1], 70, 60), expected)
    assert np.array_equal(resize_image(np.broadcast_to(image[:1, :1], (40, 50, 3)), 70, 60)[5, 5], image[0, 0])


def test_to_tensor():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(to_tensor(image, "BGR").numpy(), image.transpose(2, 0, 1))
    assert np.array_equal(to_tensor(image[:, ::-1], "RGB").numpy(), image[:, ::-1, ::-1].transpose(2, 0, 1))

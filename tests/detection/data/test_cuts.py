"""Cropped samples against detectron2's, and polygons cut to a window against shapely's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, PolygonMasks, polygons_to_bitmask

from detection.coco_json.masks import polygon_area
from detection.data.augment import Augmentation, Crop, bit_masks
from detection.data.mapper import Mapper, Resize
from detection.data.sets import build_set
from detection.data.view import View, cut_polygon

# detectron2 hands an array of Pillow's to torch; nothing writes to it.
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


@pytest.fixture(scope="module")
def persons(shared_data):
    folder = shared_data / "coco"
    return json.loads((folder / "annotations" / "person_keypoints_val2017.json").read_text()), folder / "val2017"


@pytest.fixture(scope="module")
def coco(shared_data):
    folder = shared_data / "coco"
    return json.loads((folder / "annotations" / "instances_val2017.json").read_text()), folder / "val2017"


class Fixed(Crop):
    """Always the same part."""

    def draw(self, width, height, rng):
        return self.part_of(width, height)

    @staticmethod
    def part_of(width, height):
        return width // 5, height // 4, width // 2, height // 2


def detectron2_sample(images, data, index, flip, **masks):
    x, y, width, height = Fixed.part_of(*images.size(index))
    moves = [T.CropTransform(x, y, width, height), T.ResizeShortestEdge([150], 260, "choice")]
    moves += [T.RandomFlip(1.0)] if flip == "horizontal" else []
    keypoints = {"use_keypoint": True} if images.keypoints is not None else {}
    if keypoints:
        keypoints["keypoint_hflip_indices"] = np.array(
            [0, *(place + (1 if place % 2 else -1) for place in range(1, 17))]
        )
    mapper = DatasetMapper(is_train=True, augmentations=moves, image_format="RGB", **keypoints, **masks)
    label_of = {category: label for label, category in enumerate(images.category_ids)}
    record = data["images"][index]
    annotations = [
        {**annotation, "category_id": label_of[annotation["category_id"]], "bbox_mode": BoxMode.XYWH_ABS}
        for annotation in data["annotations"]
        if annotation["image_id"] == record["id"]
    ]
    for annotation in annotations if keypoints else ():
        # As detectron2's loader: from indices of pixels to distances.
        points = np.array(annotation["keypoints"], dtype=float).reshape(-1, 3)
        annotation["keypoints"] = (points + (0.5, 0.5, 0)).reshape(-1).tolist()
    size = {"width": record["width"], "height": record["height"]}
    return mapper({"file_name": str(images.path(index)), "annotations": annotations, **size})


@pytest.mark.parametrize(
    ("flip", "masks", "mask_format"),
    [("horizontal", True, "polygon"), ("none", True, "bitmask"), ("none", False, "polygon")],
)
def test_cropped_samples_equal_detectron2(coco, flip, masks, mask_format):
    pytest.importorskip("shapely")
    data, folder = coco
    images = build_set(data, name="coco", folder=folder, masks=masks)
    crop = Augmentation(crop=Fixed("relative", (0.5, 0.5)))
    mapper = Mapper(
        images, resize=Resize((150,), 260), channel_order="RGB", flip=flip, mask_format=mask_format, augmentation=crop
    )

    class Always:
        def random(self):
            return 0.0

    kept = 0
    given = {"use_instance_mask": masks, "instance_mask_format": mask_format, "recompute_boxes": masks}
    for index in range(0, len(images), 3):
        expected = detectron2_sample(images, data, index, flip, **given)
        sample = mapper(index, Always())
        assert sample["image"].shape == expected["image"].shape
        assert (sample["image"].float() - expected["image"].float()).abs().mean() < 0.02
        target, peer = sample["instances"], expected["instances"]
        assert torch.equal(target.gt_classes, peer.gt_classes)
        assert torch.allclose(target.gt_boxes.tensor, peer.gt_boxes.tensor, rtol=0, atol=2e-3)
        kept += len(target)
        if masks and len(target):
            assert isinstance(target.gt_masks, type(peer.gt_masks))
            one, other = bit_masks(target).tensor, bit_masks(peer).tensor.bool()
            # Where a polygon was cut, a point between two pixels may round to either.
            assert ((one != other).sum(dim=(1, 2)) <= 3 + 0.002 * other.sum(dim=(1, 2))).all()
        if isinstance(target.gt_masks if masks else None, PolygonMasks):
            assert torch.allclose(target.gt_masks.area(), peer.gt_masks.area(), rtol=1e-3, atol=0.05)
    assert kept > 20


def test_cropped_keypoints_equal_detectron2(persons):
    data, folder = persons
    images = build_set(data, name="coco", folder=folder, keypoints=True)
    crop = Augmentation(crop=Fixed("relative", (0.5, 0.5)))
    mapper = Mapper(images, resize=Resize((150,), 260), channel_order="RGB", flip="none", augmentation=crop)
    labelled = 0
    for index in images.trainable()[::4]:
        target = mapper(index, np.random.default_rng(0))["instances"]
        peer = detectron2_sample(images, data, index, "none")["instances"]
        assert torch.allclose(target.gt_boxes.tensor, peer.gt_boxes.tensor, rtol=0, atol=2e-3)
        assert torch.allclose(target.gt_keypoints.tensor, peer.gt_keypoints.tensor, rtol=0, atol=2e-3)
        labelled += int((target.gt_keypoints.tensor[..., 2] > 0).sum())
    assert labelled > 50


def star(random: np.random.Generator, corners: int) -> np.ndarray:
    """A polygon that does not cross itself, and is as concave as may be."""
    angles = np.sort(random.uniform(0, 2 * np.pi, corners))
    radii = random.uniform(2, 40, corners)[:, None]
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii + random.uniform(5, 45, 2)


def test_cut_polygons_equal_shapely():
    """Area and box of what is left: the lines along the border that join pieces have none of their own."""
    geometry = pytest.importorskip("shapely.geometry")
    random, cut = np.random.default_rng(0), 0
    window = (10, 12, 30, 26)  # x, y, width, height
    view = View((50, 50), (0, 0, 50, 50), (50, 50), "none", window, window[:2], (50, 50))
    box = geometry.box(10, 12, 40, 38)
    for corners in [3, 4, 7, 12] * 40:
        points = star(random, corners)
        shape = geometry.Polygon(points)
        if not shape.is_valid:
            continue
        rest = shape.intersection(box)
        (pieces,), (bounds,) = view.polygons([[points.reshape(-1).tolist()]])
        assert (polygon_area(pieces[0]) if pieces else 0) == pytest.approx(rest.area, abs=1e-6)
        if rest.area:
            assert bounds.tolist() == pytest.approx(list(rest.bounds), abs=1e-6)
            cut += rest.area < shape.area
            # Drawn as one, pieces and the lines that join them cover what shapely's pieces do.
            parts = [np.array(part.exterior.coords).reshape(-1) for part in getattr(rest, "geoms", [rest])]
            found, expected = polygons_to_bitmask(pieces, 50, 50), polygons_to_bitmask(parts, 50, 50)
            assert (found != expected).sum() <= 3
            found[12:38, 10:40] = False
            assert not found.any()
        else:
            assert not bounds.any()
    assert cut > 60


def test_a_polygon_around_a_corner_of_the_window():
    """It holds three corners of the window's frame and nothing of its middle."""
    around = np.array([[-5, -5], [15, -5], [15, 2], [2, 2], [2, 15], [-5, 15]], dtype=float)
    piece = cut_polygon(around, np.array([0, 0]), np.array([10, 10]))
    assert polygon_area(piece.reshape(-1)) == 36
    beside = np.array([[-5, 4], [3, 4], [-2, 3], [-2, -2], [4, -2], [-4, -4]], dtype=float)
    view = View((10, 10), (0, 0, 10, 10), (10, 10), "none", (0, 0, 8, 8), (0, 0), (8, 8))
    (_,), (bounds,) = view.polygons([[beside.reshape(-1).tolist()]])
    assert bounds[1] > 3 and bounds[0] == 0

"""Mosaics, pasted objects, scale jitter and crops: the same pixels, boxes and masks as plain loops and the peers give.

Every object of the scenes has a colour of its own, so an image says by itself what it shows.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, PolygonMasks
from pycocotools import mask as coco_mask
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from detection.data.augment import Augmentation, CopyPaste, Crop, Mosaic, ScaleJitter, bit_masks
from detection.data.mapper import Mapper, Resize
from detection.data.sets import DetectionSet, build_set

SIZES = ((60, 40), (44, 70), (30, 30), (90, 52))
FILL = (1.0, 2.0, 3.0)
FORMS = ("polygon", "run lengths", "both")
GROUND = 100  # red of the background; objects have less


def rectangle_of(number: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Four rectangles that do not touch each other, one in each quarter of an image."""
    left, top = (number % 2) * width // 2 + 2, (number // 2) * height // 2 + 1
    return left, top, left + width // 2 - 5 - number, top + height // 2 - 3


def write_scenes(folder: Path, form: str) -> DetectionSet:
    """Four images with four objects each; object k of image i is red 10 * i + k + 10, and of class k."""
    records, annotations = [], []
    for index, (width, height) in enumerate(SIZES):
        image = np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)
        image[:, :, 2] = GROUND + index
        for number in range(4):
            x0, y0, x1, y1 = rectangle_of(number, width, height)
            image[y0:y1, x0:x1, 2] = 10 * index + number + 10
            mask = np.zeros((height, width), np.uint8)
            mask[y0:y1, x0:x1] = 1
            encoded = coco_mask.encode(np.asfortranarray(mask))
            drawn = {"size": [height, width], "counts": encoded["counts"].decode()}
            if form == "polygon" or (form == "both" and number % 2):
                drawn = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            points = [x0, y0, 2, x1 - 1, y1 - 1, 2]
            annotations.append(
                {"image_id": index, "category_id": number, "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": drawn}
                | {"iscrowd": 0, "keypoints": points, "num_keypoints": 2}
            )
        # A crowd over all: never a target, never pasted.
        annotations.append({"image_id": index, "category_id": 0, "bbox": [0, 0, width, height], "iscrowd": 1})
        annotations[-1] |= {"segmentation": [[0, 0, width, 0, width, height]]}
        cv2.imwrite(str(folder / f"{index}.png"), image)
        records.append({"id": index, "file_name": f"{index}.png", "width": width, "height": height})
    categories = [{"id": number, "name": f"c{number}", "keypoints": ["left a", "right a"]} for number in range(4)]
    data = {"images": records, "annotations": annotations, "categories": categories}
    return build_set(data, name="scenes", folder=folder, masks=True, keypoints=True)


def make_mapper(images: DetectionSet, augmentation: Augmentation, size: int = 0, **keywords) -> Mapper:
    resize = Resize((size,), 1000)
    keywords = {"flip": "both", **keywords}
    return Mapper(images, resize=resize, channel_order="RGB", augmentation=augmentation, others=range(4), **keywords)


def check_against_pixels(sample: dict, *, all_seen: bool = True) -> int:
    """Compare boxes, masks and classes with where the objects' colours are; return how many there are.

    Args:
        all_seen: no colour may be without its object.
    """
    target, red = sample["instances"], sample["image"][0].numpy()
    masks = bit_masks(target).tensor.numpy()
    assert len(masks) == len(target) and target.image_size == red.shape
    left = np.where(red < 10, GROUND, red)
    for mask, box, label in zip(masks, target.gt_boxes.tensor.tolist(), target.gt_classes.tolist()):
        colours = np.unique(red[mask])
        assert len(colours) == 1 and colours[0] < GROUND and colours[0] % 10 == label
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        left[mask] = GROUND
    if all_seen:
        assert (left >= GROUND).all()
    return len(target)


@pytest.mark.parametrize("form", FORMS)
def test_a_mosaic_shows_what_plain_loops_find(tmp_path, form):
    images = write_scenes(tmp_path, form)
    mapper = make_mapper(images, Augmentation(mosaic=Mosaic(1.0, (1.0, 1.0), 0.0), fill=FILL))
    shown, filled = 0, 0
    for seed in range(25):
        sample = mapper(seed % 4, np.random.default_rng(seed))
        assert tuple(sample["image"].shape[1:]) == SIZES[seed % 4][::-1]
        assert isinstance(sample["instances"].gt_masks, PolygonMasks if form == "polygon" else BitMasks)
        shown += check_against_pixels(sample)
        empty = sample["image"][0] < 10
        assert set(sample["image"][:, empty].T.flatten().tolist()) <= set(FILL)
        filled += int(empty.any())
        # Keypoints of cut objects are where they were, or unlabelled.
        points = sample["instances"].gt_keypoints.tensor
        seen = points[points[..., 2] > 0].long()
        boxes = sample["instances"].gt_boxes.tensor[:, None].expand(-1, 2, 4)[points[..., 2] > 0]
        assert ((seen[:, :2] >= boxes[:, :2].long()) & (seen[:, :2] < boxes[:, 2:])).all()
        assert (points[points[..., 2] == 0] == 0).all()
    assert shown > 150 and 0 < filled < 25


def test_slivers_in_a_mosaic_are_no_targets(tmp_path):
    images = write_scenes(tmp_path, "polygon")
    every, most = (
        make_mapper(images, Augmentation(mosaic=Mosaic(1.0, (0.5, 1.0), least), fill=FILL), 50) for least in (0.0, 0.5)
    )
    dropped = 0
    for seed in range(20):
        all_boxes, boxes = (
            [tuple(box) for box in mapper(0, np.random.default_rng(seed))["instances"].gt_boxes.tensor.tolist()]
            for mapper in (every, most)
        )
        assert set(boxes) <= set(all_boxes)
        dropped += len(all_boxes) - len(boxes)
    assert dropped > 10


@pytest.mark.parametrize("form", FORMS)
def test_pasted_objects_hide_what_is_below(tmp_path, form):
    images = write_scenes(tmp_path, form)
    mapper = make_mapper(images, Augmentation(copy_paste=CopyPaste(1.0, 0.7), fill=FILL))
    plain = make_mapper(images, Augmentation())
    hidden, pasted, unseen = 0, 0, 0
    for seed in range(40):
        index = seed % 4
        sample, before = mapper(index, np.random.default_rng(seed)), plain(index, np.random.default_rng(seed))
        check_against_pixels(sample)
        reds = sample["image"][0].numpy()
        own = {10 * index + number + 10 for number in range(4)}
        seen = set(np.unique(reds[reds < GROUND]).tolist())
        pasted += len(seen - own)
        hidden += 4 - len(seen & own)
        # Outside of what was pasted, the image is as it was.
        same = (sample["image"] == before["image"]).all(dim=0)
        objects = bit_masks(sample["instances"]).tensor.any(dim=0)
        assert (same | objects).all()
        points = sample["instances"].gt_keypoints.tensor
        unseen += int((points[..., 2] == 1).sum())
        for x, y, sure in points[: len(seen & own)].reshape(-1, 3).tolist():
            if sure == 2:
                assert reds[int(y), int(x)] in own
    assert pasted > 40 and hidden > 0 and unseen > 0


def test_nothing_is_pasted_from_an_image_without_objects(tmp_path):
    images = write_scenes(tmp_path, "polygon")
    images.crowd[:] = True
    sample = make_mapper(images, Augmentation(copy_paste=CopyPaste(1.0, 1.0)))(0, np.random.default_rng(0))
    assert len(sample["instances"]) == 0 and sample["instances"].gt_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("scale", [(0.3, 0.3), (1.0, 1.0), (1.7, 1.7)])
@pytest.mark.parametrize("form", ["polygon", "run lengths"])
def test_scale_jitter_equals_torchvision(tmp_path, form, scale):
    """Resized by the factor, cut or filled at the right and below, as v2.ScaleJitter and v2's crop and pad do."""
    images = write_scenes(tmp_path, form)
    height, width = 64, 80
    mapper = make_mapper(images, Augmentation(scale_jitter=ScaleJitter((height, width), scale), fill=FILL), flip="none")
    for index in range(4):
        view = mapper.view(index, np.random.default_rng(5))
        found = mapper(index, np.random.default_rng(5))
        target = found["instances"]
        image = tv_tensors.Image(
            torch.from_numpy(cv2.imread(str(images.path(index)))[:, :, ::-1].copy()).permute(2, 0, 1)
        )
        rows = np.arange(images.starts[index], images.starts[index + 1])[~images.crowd[images.starts[index] :][:5]]
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(images.boxes[rows]), format="XYXY", canvas_size=image.shape[-2:]
        )
        sizes = v2.ScaleJitter((width, height), scale)(image).shape[-2:]
        assert max(abs(side - other) for side, other in zip(view.size, sizes[::-1])) <= 1
        x, y, kept_width, kept_height = view.window
        expected = v2.functional.resize(image, list(view.size[::-1]), antialias=True)
        expected = v2.functional.crop(expected, y, x, kept_height, kept_width)
        padding = [0, 0, width - kept_width, height - kept_height]
        # Channel by channel: v2 pads with one number.
        filled = torch.stack(
            [
                v2.functional.pad(tv_tensors.Image(plane[None]), padding, fill=fill)[0]
                for plane, fill in zip(expected, FILL)
            ]
        )
        assert found["image"].shape == (3, height, width)
        assert (found["image"].float() - filled.float()).abs().max() <= 1
        moved = v2.functional.resize(boxes, list(view.size[::-1]))
        moved = v2.functional.crop(moved, y, x, kept_height, kept_width)
        moved = v2.functional.clamp_bounding_boxes(moved).as_subclass(torch.Tensor)
        seen = ((moved[:, 2:] - moved[:, :2]) > 1e-3).all(dim=1)
        assert len(target) >= int(seen.sum()) - (scale[0] < 1 and form == "run lengths")
        if form == "polygon":
            assert torch.allclose(target.gt_boxes.tensor, moved[seen], atol=0.02)
        else:  # boxes of the masks' pixels where the image is cut
            assert (target.gt_boxes.tensor - moved[seen]).abs().max() <= 1
        for mask, row in zip(bit_masks(target).tensor, rows[seen.numpy()]):
            x0, y0, x1, y1 = images.boxes[row].astype(int).tolist()
            drawn = torch.zeros(1, 1, *image.shape[-2:])
            drawn[..., y0:y1, x0:x1] = 1
            drawn = F.interpolate(drawn, view.size[::-1], mode="nearest-exact")[0, 0, y:, x:][:kept_height, :kept_width]
            full = torch.zeros(height, width, dtype=torch.bool)
            full[:kept_height, :kept_width] = drawn.bool()
            union = (full | mask).sum().item()
            assert torch.equal(full, mask) if form != "polygon" else (full ^ mask).sum() <= 0.25 * union + 4


def test_drawn_scales_and_windows(tmp_path):
    images = write_scenes(tmp_path, "polygon")
    mapper = make_mapper(images, Augmentation(scale_jitter=ScaleJitter((64, 80), (0.5, 2.0)), fill=FILL))
    views = [mapper.view(0, np.random.default_rng(seed)) for seed in range(300)]
    factors = np.array([view.size[0] / 80 for view in views])
    assert 0.5 <= factors.min() < 0.55 and 1.9 < factors.max() <= 2.0 and abs(factors.mean() - 1.25) < 0.1
    assert {view.canvas for view in views} == {(80, 64)}
    corners = [view.window[:2] for view in views if view.size[0] > 150]
    assert min(x for x, _ in corners) < 10 and max(x for x, _ in corners) > 60


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("relative", (0.5, 0.8)),
        ("relative_range", (0.3, 0.6)),
        ("absolute", (30, 50)),
        ("absolute", (500, 20)),
        ("absolute_range", (10, 45)),
        ("absolute_range", (50, 60)),
    ],
)
def test_crops_are_those_of_detectron2(kind, size):
    """Of the same sizes, everywhere; `absolute_range` takes least and greatest, the others height and width."""
    width, height, rng = 60, 40, np.random.default_rng(0)
    drawn = np.array([Crop(kind, size).draw(width, height, rng) for _ in range(400)])
    np.random.seed(0)  # noqa: NPY002 (what detectron2 draws from)
    peer = np.array([T.RandomCrop(kind, size).get_crop_size((height, width)) for _ in range(400)])
    x, y, wide, high = drawn.T
    assert (x >= 0).all() and (y >= 0).all() and (x + wide <= width).all() and (y + high <= height).all()
    assert abs(wide.min() - peer[:, 1].min()) <= 1 and wide.max() == peer[:, 1].max()
    assert abs(high.min() - peer[:, 0].min()) <= 1 and high.max() == peer[:, 0].max()
    assert abs(wide.mean() - peer[:, 1].mean()) < 1.5 and abs(high.mean() - peer[:, 0].mean()) < 1.5
    assert x.min() == y.min() == 0 and (x + wide).max() == width and (y + high).max() == height


@pytest.mark.parametrize("augmentation", [Augmentation(crop=Crop("relative", (0.01, 0.01)))])
def test_a_crop_may_hold_no_object(tmp_path, augmentation):
    mapper = make_mapper(write_scenes(tmp_path, "polygon"), augmentation)
    found = [mapper(1, np.random.default_rng(seed)) for seed in range(20)]
    assert {tuple(sample["image"].shape) for sample in found} == {(3, 1, 1)}
    empty = [sample["instances"] for sample in found if not len(sample["instances"])]
    assert empty and all(len(target.gt_masks) == len(target.gt_keypoints) == 0 for target in empty)

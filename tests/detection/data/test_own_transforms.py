"""Transforms of the user's own: behind ours, in training alone, the same for the same seed and step."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import torch
from detectron2.data.transforms import RandomBrightness
from detectron2.structures import PolygonMasks
from keypoint_set import write_corners
from torchvision.transforms import ColorJitter, v2

import detection
from backbone import ConfigError
from backbone.engine.loading import BatchSampler, EpochSampler, make_loader, until_error
from detection.data import transforms
from detection.data.augment import bit_masks
from detection.data.mapper import Mapper, Resize
from detection.data.samples import TrainingSamples
from detection.data.sets import build_set
from detection.data.transforms import register_transform
from detection.engine.datasets import load_sets, training_mapper


class Zero:
    """A generator that flips always."""

    def random(self):
        return 0.0


@pytest.fixture
def config():
    keys = ["DATASETS.TRAIN", ("mini_val",), "DATASETS.TEST", (), "INPUT.MIN_SIZE_TRAIN", (64,)]
    return detection.get_config("mini_faster_rcnn_r18.yaml", keys)


def test_a_transform_of_ones_own(config, monkeypatch):
    monkeypatch.setattr(transforms, "_transforms", {})
    images = load_sets(config, training=True).train
    before = TrainingSamples(training_mapper(images, config), seed=3)[5, 2]

    @register_transform
    def darken(sample, random):
        factor = random.uniform(0.2, 0.8)
        return {**sample, "image": (sample["image"] * factor).to(torch.uint8), "factor": factor}

    mapper = training_mapper(images, config)
    samples = TrainingSamples(mapper, seed=3)
    first, again, other = samples[5, 2], samples[5, 2], samples[6, 2]
    assert first["factor"] == again["factor"] != other["factor"]
    assert torch.equal(first["image"], (before["image"] * first["factor"]).to(torch.uint8))
    assert torch.equal(first["instances"].gt_boxes.tensor, before["instances"].gt_boxes.tensor)
    assert "factor" not in mapper(2)  # without a generator: no training
    assert np.isfinite(first["factor"])


@pytest.fixture(scope="module")
def masked():
    keys = ["DATASETS.TRAIN", ("mini_val",), "DATASETS.TEST", (), "INPUT.MIN_SIZE_TRAIN", (64, 80, 96)]
    config = detection.get_config("mini_faster_rcnn_r18.yaml", [*keys, "MODEL.MASK_ON", True])
    return load_sets(config, training=True).train, config


def changed(config, *keys):
    pairs = dict(zip(keys[::2], keys[1::2]))
    config = config.clone()
    config.defrost()
    config.merge_from_list([item for pair in pairs.items() for item in pair])
    return config


EVERYTHING = (
    *("INPUT.CROP.ENABLED", True, "INPUT.MOSAIC.ENABLED", True, "INPUT.COPY_PASTE.ENABLED", True),
    *("INPUT.COLOR_JITTER.ENABLED", True, "INPUT.RANDOM_FLIP", "both", "INPUT.MASK_FORMAT", "bitmask"),
)
JITTER = (
    *("INPUT.LARGE_SCALE_JITTER.ENABLED", True, "INPUT.LARGE_SCALE_JITTER.SIZE", (80, 96)),
    *("INPUT.COPY_PASTE.ENABLED", True, "INPUT.COPY_PASTE.PROB", 1.0),
)


@pytest.mark.parametrize("keys", [EVERYTHING, JITTER])
def test_samples_follow_from_seed_and_step(masked, keys):
    """With loader processes and without, begun at any step: to the same bits; torch's own draws are left alone."""
    images, config = masked[0], changed(masked[1], *keys)
    own = [v2.RandomPhotometricDistort(p=1.0)]

    def batches(workers, start=0):
        samples = TrainingSamples(training_mapper(images, config, transforms=own), seed=3)
        order = BatchSampler(EpochSampler(range(len(images)), 3), batch_size=2, start=start, steps=4)
        return list(until_error(make_loader(samples, workers=workers, pin_memory=False, batches=order)))

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    whole = batches(0)
    assert torch.equal(torch.rand(3), expected)
    for start, others in ((0, batches(2)), (2, batches(1, start=2))):
        assert len(others) == 4 - start
        for one, other in zip(chain(*whole[start:]), chain(*others)):
            assert one["image_id"] == other["image_id"] and torch.equal(one["image"], other["image"])
            mine, theirs = one["instances"], other["instances"]
            assert torch.equal(mine.gt_boxes.tensor, theirs.gt_boxes.tensor)
            assert torch.equal(mine.gt_classes, theirs.gt_classes)
            assert torch.equal(bit_masks(mine).tensor, bit_masks(theirs).tensor)
    first = torch.stack([sample["image"].float().mean() for sample in chain(*whole)])
    assert len(first.unique()) == len(first)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("as_float", [False, True])
def test_color_jitter_is_torchvisions(masked, order, as_float):
    images, config = masked
    plain = changed(config, "INPUT.FORMAT", order, "INPUT.FLOAT_RESIZE", as_float)
    jittered = changed(plain, "INPUT.COLOR_JITTER.ENABLED", True, "INPUT.COLOR_JITTER.HUE", 0.3)
    before = training_mapper(images, plain)(0, np.random.default_rng(7))
    after = training_mapper(images, jittered)(0, np.random.default_rng(7))
    # What the mapper has drawn before: the size and the flip.
    random = np.random.default_rng(7)
    random.choice((64, 80, 96)), random.random()
    rgb = before["image"] if order == "RGB" else before["image"][[2, 1, 0]]
    torch.manual_seed(int(random.integers(2**63)))
    expected = v2.ColorJitter(0.2, 0.2, 0.2, 0.3)(rgb / 255 if as_float else rgb) * (255 if as_float else 1)
    expected = expected if order == "RGB" else expected[[2, 1, 0]]
    assert not torch.equal(before["image"], after["image"])
    assert torch.equal(after["image"], expected)
    assert isinstance(after["instances"].gt_masks, PolygonMasks)
    assert torch.equal(after["instances"].gt_boxes.tensor, before["instances"].gt_boxes.tensor)


def test_transforms_of_torchvision_move_boxes_and_masks(masked):
    images, config = masked
    config = changed(config, "INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.RANDOM_FLIP", "none")
    own = [v2.Compose([v2.RandomHorizontalFlip(1.0), v2.RandomVerticalFlip(1.0)])]
    turned = training_mapper(images, config, transforms=own)(1, np.random.default_rng(0))
    expected = training_mapper(images, changed(config, "INPUT.RANDOM_FLIP", "both"))(1, Zero())
    assert torch.equal(turned["image"], expected["image"])
    assert torch.allclose(turned["instances"].gt_boxes.tensor, expected["instances"].gt_boxes.tensor, atol=1e-4)
    one, other = bit_masks(turned["instances"]).tensor, bit_masks(expected["instances"]).tensor
    # A polygon that was mirrored may round to the pixel beside.
    assert (one != other).float().mean() < 0.01


@pytest.mark.parametrize("sanitized", [False, True])
def test_what_a_transform_of_torchvision_cuts_away_is_no_target(masked, sanitized):
    """v2.RandomIoUCrop marks boxes by no area, SanitizeBoundingBoxes removes them: the same objects remain."""
    images, config = masked
    cut = v2.RandomIoUCrop(max_scale=0.7)
    own = [v2.Compose([cut, v2.SanitizeBoundingBoxes()]) if sanitized else cut]
    mapper, lost = training_mapper(images, config, transforms=own), 0
    for index in range(12):
        sample = mapper(index, np.random.default_rng(index))
        before = training_mapper(images, config)(index, np.random.default_rng(index))["instances"]
        target = sample["instances"]
        height, width = target.image_size
        assert tuple(sample["image"].shape[1:]) == (height, width)
        boxes = target.gt_boxes.tensor
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
        assert target.gt_boxes.nonempty().all() and target.gt_masks.nonempty().all()
        for mask, box in zip(bit_masks(target).tensor, boxes):
            rows, columns = mask.nonzero().T
            assert (columns >= box[0].floor()).all() and (columns < box[2].ceil()).all()
            assert (rows >= box[1].floor()).all() and (rows < box[3].ceil()).all()
        lost += len(before) - len(target)
    assert lost > 0


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            v2.ToDtype(torch.float32, scale=True),
            "transform ToDtype turns images .* of torch.uint8 into .* of torch.float32",
        ),
        (
            ColorJitter(0.2),
            r"the transform ColorJitter\(.*\) is neither one of torchvision.transforms.v2 nor a function",
        ),
        (RandomBrightness(0.9, 1.1), r"the transform RandomBrightness\(.*\) is neither"),
        ("darken", "the transform 'darken' is neither"),
        (lambda sample, random: None, "the transform .*<lambda>' returned NoneType; it must return the sample"),
    ],
)
def test_transforms_that_are_none_are_one_line(masked, own, said):
    with pytest.raises(ConfigError, match=said):
        training_mapper(*masked, transforms=[own])(0, np.random.default_rng(0))


def test_keypoints_move_with_a_transform_of_torchvision(tmp_path):
    folder = write_corners(tmp_path / "corners.json", 4)
    images = build_set(json.loads((tmp_path / "corners.json").read_text()), name="k", folder=folder, keypoints=True)
    keywords = {"resize": Resize((0,), 1000), "channel_order": "RGB", "flip": "none"}
    plain = Mapper(images, **keywords)(0, Zero())["instances"].gt_keypoints.tensor
    width, height = images.size(0)
    side = int(0.8 * min(width, height))
    cropped = Mapper(images, **keywords, transforms=[v2.CenterCrop(side)])(0, np.random.default_rng(0))["instances"]
    offset = torch.tensor([round((width - side) / 2), round((height - side) / 2)])
    inside = ((plain[..., :2] - offset >= 0) & (plain[..., :2] - offset <= side)).all(-1) & (plain[..., 2] > 0)
    shown = cropped.gt_keypoints.tensor
    assert inside.any() and (~inside).any()
    assert set(map(tuple, shown[shown[..., 2] > 0][:, :2].tolist())) == set(
        map(tuple, (plain[..., :2] - offset)[inside].tolist())
    )


def test_what_is_registered_twice(monkeypatch):
    """The same once, a function of the same name in the place of the former one, and every lambda for itself."""
    monkeypatch.setattr(transforms, "_transforms", {})
    flip, one, other = v2.RandomHorizontalFlip(), lambda sample, random: sample, lambda sample, random: sample

    def named():
        def brighten(sample, random):
            return sample

        return brighten

    first, second = named(), named()
    for transform in (flip, one, other, first, flip, second):
        assert register_transform(transform) is transform
    assert transforms.registered_transforms() == (flip, one, other, second)

"""Label images, and the sets that hold them, right and wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from small_segmentation import CLASSES, scene, write_folders, write_voc

from backbone.common.class_names import VOC_CLASSES
from backbone.common.errors import ConfigError, DataError
from backbone.segmentation import default_config
from backbone.segmentation.data import open_sets
from backbone.segmentation.data.form import plain_form
from backbone.segmentation.data.labels import read_label, voc_palette, write_label
from backbone.segmentation.evaluation import VOID

FORM = plain_form(CLASSES)


def config_of(root, **keys):
    config = default_config()
    config.DATA.ROOT = str(root)
    config.merge_from_list([part for key, value in keys.items() for part in (f"DATA.{key}", value)])
    return config


def test_the_palette_is_vocs():
    # From the colour map of the development kit: aeroplane, bicycle, diningtable, person, tvmonitor, void.
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 11: (192, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(voc_palette()[label].tolist()) for label in known} == known
    assert voc_palette()[VOID].tolist() == [224, 224, 192]


def test_palette_and_gray_images_hold_the_same_labels(tmp_path):
    label = scene(0)[1]
    write_label(tmp_path / "palette.png", label)
    cv2.imwrite(str(tmp_path / "gray.png"), label)
    few = Image.fromarray(np.minimum(label, 2))
    few.putpalette(voc_palette().tobytes())
    few.save(tmp_path / "two_bits.png", bits=2)
    assert np.array_equal(read_label(tmp_path / "palette.png", FORM), label)
    assert np.array_equal(read_label(tmp_path / "gray.png", FORM), label)
    assert np.array_equal(read_label(tmp_path / "two_bits.png", FORM), np.minimum(label, 2))
    with Image.open(tmp_path / "palette.png") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), voc_palette()[label])


def test_wrong_label_images_are_named(tmp_path):
    label = scene(0)[1]
    label[7, 30] = 3
    write_label(tmp_path / "high.png", label)
    cv2.imwrite(str(tmp_path / "colours.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "text.png").write_text("no image")
    whole = (tmp_path / "high.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, message in {
        "high": r"high.png: label 3 at x 30, y 7 is none of the 3 classes \(0 to 2\) and not 255",
        "colours": "has 3 channels",
        "text": "not an image that Pillow can read",
        "cut": "cut.png: the label image cannot be read",
        "nowhere": "does not exist",
    }.items():
        with pytest.raises(DataError, match=message):
            read_label(tmp_path / f"{name}.png", FORM)


def test_folders_and_lists(tmp_path):
    train, val = open_sets(config_of(write_folders(tmp_path / "set"), NAME="folders"), training=True)
    assert (len(train), len(val), val.classes) == (4, 3, list(CLASSES))
    image, label = val.read(1)
    expected_image, expected_label = scene(101)
    assert np.array_equal(image, expected_image[:, :, ::-1]) and np.array_equal(label, expected_label)
    root = tmp_path / "set"
    for kind in ("images", "labels"):
        for path in (root / kind / "train").iterdir():
            path.rename(root / kind / path.name)
    (root / "mine.txt").write_text("2\n0\n")
    chosen, _ = open_sets(config_of(root, NAME="folders", TRAIN="mine"), training=True)
    assert [chosen.path(index).stem for index in range(2)] == ["2", "0"]
    assert np.array_equal(chosen.read(0)[1], scene(2)[1])


def test_voc(tmp_path):
    root = write_voc(tmp_path)
    train, val = open_sets(config_of(root), training=True)
    assert (len(train), len(val), len(val.classes)) == (3, 3, 21) and val.classes[15] == "person"
    assert np.array_equal(val.read(2)[1], scene(12)[1])
    inside, _ = open_sets(config_of(root / "VOCdevkit" / "VOC2012"), training=True)
    assert inside.path(0).name == train.path(0).name
    _, test = open_sets(config_of(root, VAL="test"), training=False)
    assert not test.has_truth and test.read(0)[1] is None
    with pytest.raises(ConfigError, match="'test': this set has no labels"):
        open_sets(config_of(root, TRAIN="test"), training=True)


def test_what_is_missing_is_named(tmp_path):
    root = write_voc(tmp_path / "voc")
    folder = root / "VOCdevkit" / "VOC2012"
    with pytest.raises(DataError, match="trian.txt: no such list of images; did you mean 'train'"):
        open_sets(config_of(root, TRAIN="trian"), training=True)
    with pytest.raises(DataError, match="SegmentationClassAug: the folder of label images does not exist"):
        open_sets(config_of(root, LABEL_FOLDER="SegmentationClassAug"), training=True)
    (folder / "SegmentationClass" / "2012_11.png").unlink()
    with pytest.raises(DataError, match="2012_11.png: the label image does not exist"):
        open_sets(config_of(root), training=True)
    with pytest.raises(DataError, match="holds no VOCdevkit/VOC2007"):
        open_sets(config_of(tmp_path, YEAR='"2007"'), training=True)
    with pytest.raises(DataError, match="the data root does not exist"):
        open_sets(config_of(tmp_path / "nowhere"), training=True)


def test_an_image_of_another_size_than_its_labels(tmp_path):
    root = write_folders(tmp_path)
    write_label(root / "labels" / "val" / "0.png", np.zeros((5, 6), np.uint8))
    _, val = open_sets(config_of(root, NAME="folders"), training=False)
    with pytest.raises(DataError, match=r"images.val.0.png: the image is 60x72 pixels, .*0.png says 6x5"):
        val.read(0)


# By hand: where COCO calls a class of VOC otherwise.
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def slow_labels(content: dict, image: dict, names: list[str]) -> np.ndarray:
    """Every annotation as a mask of pycocotools' own, pixel by pixel into the labels."""
    from pycocotools import mask as coco_mask

    ids = {category["name"]: category["id"] for category in content["categories"]}
    label_of = {ids[name]: label for label, name in enumerate(names, start=1)}
    size = image["height"], image["width"]
    masks = []
    for annotation in content["annotations"]:
        if annotation["image_id"] == image["id"] and annotation["category_id"] in label_of:
            shape = annotation["segmentation"]
            runs = coco_mask.frPyObjects(shape, *size)
            mask = coco_mask.decode(runs)
            masks.append((label_of[annotation["category_id"]], mask.any(2) if mask.ndim == 3 else mask > 0))
    labels = np.zeros(size, np.uint8)
    for y, x in np.ndindex(*size):
        here = [label for label, mask in masks if mask[y, x]]
        labels[y, x] = here[0] if len(here) == 1 else VOID if here else 0
    return labels


def test_labels_of_the_real_coco_sample(shared_data):
    train, val = open_sets(config_of(shared_data, NAME="coco", TRAIN="train2017", VAL="val2017"), training=True)
    assert len(val) == 50 and val.classes == ["background", *VOC_CLASSES]
    # Images with less than 1,000 annotated pixels of the 20 classes teach little.
    assert 20 < len(train) < 50
    content = json.loads((shared_data / "coco" / "annotations" / "instances_val2017.json").read_text())
    in_coco = [COCO_NAMES.get(name, name) for name in VOC_CLASSES]
    by_file = {image["file_name"]: image for image in content["images"]}
    crowds = {annotation["image_id"] for annotation in content["annotations"] if annotation["iscrowd"]}
    with_crowd = [index for index in range(50) if by_file[val.path(index).name]["id"] in crowds]
    for index in (0, with_crowd[0]):
        image, label = val.read(index)
        assert image.shape[:2] == label.shape
        assert np.array_equal(label, slow_labels(content, by_file[val.path(index).name], in_coco))


def test_a_coco_file_of_another_form(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    file = tmp_path / "annotations" / "instances_val2017.json"
    config = config_of(tmp_path, NAME="coco", VAL="val2017")
    for text, message in {
        "[1]": "not annotations in COCO form",
        '{"images": []}': "not annotations in COCO form: KeyError 'categories'",
        "{": "cannot be read as JSON",
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "mug"}]}': "has no category 'aeroplane'",
    }.items():
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            open_sets(config, training=False)

"""What is wrong with a segmentation set is said before the first step; what cannot be learned is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from small_segmentation import write_folders, write_voc

from backbone.common.errors import ConfigError, DataError
from backbone.segmentation import load_config
from backbone.segmentation.data import open_sets
from backbone.segmentation.data.check import check_set
from backbone.segmentation.data.labels import write_label
from backbone.segmentation.data.sets import draw


def config_of(root, *overrides, name="folders"):
    keys = ["DATA.NAME", name, "DATA.ROOT", str(root), "DATALOADER.NUM_WORKERS", 0, "INPUT.TRAIN_SIZE", 48]
    return load_config("mini_fcn_r18.yaml", [*keys, *overrides])


def checked(root, *overrides, training=True, classes=(), **keywords) -> list[str]:
    """Open and check the sets of a root as a run does; return the notes."""
    config = config_of(root, *overrides, **keywords)
    train, test = open_sets(config, training=training, classes=classes)
    notes = check_set(train, config, training=True) if training else []
    return notes + check_set(test, config, training=False)


def labels_of(root, split="train"):
    return sorted((root / "labels" / split).iterdir())


def rewrite(paths, change) -> None:
    for path in paths:
        write_label(path, change(np.asarray(Image.open(path))).astype(np.uint8))


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "set")


def test_a_set_that_is_right_has_no_notes(root):
    assert checked(root) == []


def empty(root, split):
    for path in (root / "images" / split).iterdir():
        path.unlink()


def deeper(root, split):
    folder = root / "images" / split
    (folder / "more").mkdir()
    for path in folder.glob("*.png"):
        path.rename(folder / "more" / path.name)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("change", "said"), [(empty, "holds no images"), (deeper, "what lies deeper, as in more/")])
def test_an_empty_set_is_refused(root, split, change, said):
    change(root, split)
    with pytest.raises(DataError, match=said):
        checked(root)


def test_a_list_without_names_and_an_area_that_leaves_nothing_are_refused(tmp_path, shared_data):
    voc = write_voc(tmp_path / "voc")
    (voc / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt").write_text("\n\n")
    with pytest.raises(DataError, match="VOC2012 train: holds no images"):
        checked(voc, name="voc")
    keys = ("DATA.TRAIN", "train2017", "DATA.VAL", "val2017", "DATA.LEAST_AREA", 10**9)
    with pytest.raises(DataError, match=r"no images with 1000000000 annotated pixels or more \(DATA.LEAST_AREA\)"):
        checked(shared_data, *keys, name="coco")


def colour_mask(root):
    for path in labels_of(root, "val"):
        Image.open(path).convert("RGB").save(path)


def other_size(root):
    rewrite(labels_of(root, "val")[:1], lambda label: label[:, :-1])


def unknown_number(root):
    rewrite(labels_of(root, "val"), lambda label: np.where(label == 2, 3, label))


def no_label(root):
    labels_of(root, "val")[0].write_bytes(b"no image")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (colour_mask, r"channels \(RGB\); it must hold one class number a pixel .* \(3 of 3 images are wrong\)"),
        (other_size, "0.png says 59x72; they must be equal"),
        (unknown_number, "label 3 at x 4, y 4 is none of the 3 classes .*; labels count from 0: does the list"),
        (no_label, "not an image that Pillow can read"),
    ],
)
def test_what_is_wrong_with_validation_labels_is_found_before_training(root, change, said):
    change(root)
    with pytest.raises(DataError, match=said) as caught:
        checked(root)
    assert str(caught.value).count(str(root / "labels")) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda label: np.where(label == 1, 255, 0), "'background' and void \\(255\\) alone; where 255 stands for"),
        (lambda label: np.zeros_like(label), "its labels hold 'background' alone: nothing can be learned"),
        (lambda label: np.full_like(label, 255), "all labels are void"),
    ],
)
def test_labels_that_teach_nothing_are_refused(root, change, said):
    rewrite(labels_of(root), change)
    with pytest.raises(DataError, match=said):
        checked(root)


def test_validation_labels_that_test_nothing(root):
    rewrite(labels_of(root, "val"), lambda label: np.where(label == 1, 255, 0))
    assert checked(root) == [
        "set val: its labels hold 'background' and void (255) alone; where 255 stands for an object, DATA.ID_MAP "
        "'0: 0, 255: 1' says so"
    ]
    rewrite(labels_of(root, "val"), lambda label: np.full_like(label, 255))
    with pytest.raises(DataError, match="all labels are void"):
        checked(root)


def test_void_images_absent_classes_and_shifted_names_are_noted(root):
    rewrite(labels_of(root)[:2], lambda label: np.full_like(label, 255))
    assert checked(root) == [f"set train: 2 label images void (255) all over, first {labels_of(root)[0]}"]
    # The names lack nothing, but the numbers begin at 1: no pixel has the first.
    (root / "classes.txt").write_text("sky\nground\nround\nsquare\n")
    rewrite([*labels_of(root), *labels_of(root, "val")], lambda label: np.where(label == 255, 255, label + 1))
    shifted = [note for note in checked(root) if "no pixel of sky (1 of 4 classes)" in note]
    assert len(shifted) == 2 and all("are the names shifted by one?" in note for note in shifted)


@pytest.mark.parametrize(("kind", "ending"), [("cut", ".jpg"), ("empty", ".png"), ("text", ".png")])
def test_an_image_that_cannot_be_read_is_replaced_or_left_out(root, kind, ending):
    for split in ("train", "val"):
        path = root / "images" / split / "0.png"
        content = cv2.imencode(ending, cv2.imread(str(path)))[1].tobytes()
        path.unlink()
        path.with_suffix(ending).write_bytes({"cut": content[:-400], "empty": b"", "text": b"text"}[kind])
    train, val = checked(root)
    assert train.startswith("set train: 1 image cannot be read, others stand in for them; the first: ")
    assert val.startswith("set val: 1 image cannot be read, left out; the first: ") and f"0{ending}" in val
    with pytest.raises(DataError, match="1 of 4 images cannot be read, DATA.MAX_BAD_IMAGES allows 0"):
        checked(root, "DATA.MAX_BAD_IMAGES", 0)


def test_names_with_blanks_endings_and_two_images_of_one_label(root):
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            for path in (root / kind / split).iterdir():
                path.rename(root / kind / f"{split} {path.name}")
    (root / "train.txt").write_text("train 0\ntrain 1.png\n\n train 2 \n")
    (root / "val.txt").write_text("val 0\n")
    train, test = open_sets(config_of(root), training=True)
    assert train.names() == ["train 0", "train 1", "train 2"] and test.names() == ["val 0"]
    (root / "images" / "train 0.jpg").write_bytes((root / "images" / "train 0.png").read_bytes())
    with pytest.raises(DataError, match=r"train 0.jpg: train 0.png beside it has the same label image"):
        checked(root)


def test_one_class_alone_is_refused(root):
    (root / "classes.txt").write_text("thing\n")
    with pytest.raises(DataError, match="must hold 2 to 255 different class names"):
        checked(root)


def coco(root, split, categories, files=("a.png",)):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    names = {name: number for number, name in enumerate(categories, start=1)}
    annotations = [
        {"image_id": place, "category_id": number, "area": 100, "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}
        for place in range(len(files))
        for number in list(names.values())[-1:]
    ]
    images = [{"id": place, "file_name": file, "width": 20, "height": 16} for place, file in enumerate(files)]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"name": name, "id": number} for name, number in names.items()]
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    for file in files:
        (root / split / file).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / split / file), np.zeros((16, 20, 3), np.uint8))


def test_a_validation_set_that_lacks_a_class_has_the_labels_of_the_training_set(tmp_path):
    coco(tmp_path, "train", ["cat", "dog", "owl"])
    coco(tmp_path, "val", ["owl"], files=("x/a.png", "y/a.png"))
    keys = ("DATA.COCO_CLASSES", "all", "DATA.LEAST_AREA", 0)
    train, test = open_sets(config_of(tmp_path, *keys, name="coco"), training=True)
    assert test.classes == train.classes == ["background", "cat", "dog", "owl"]
    assert set(np.unique(test.label(0))) == set(np.unique(train.label(0))) == {0, 3}
    assert set(np.unique(draw(test.records[0]))) == {0, 1}
    # The same number as drawing it, and files of their own for images of one name.
    assert test.look(0)[0][3] == (test.label(0) == 3).sum() and test.names() == ["x/a", "y/a"]
    alone = open_sets(config_of(tmp_path, *keys, name="coco"), training=False, classes=train.classes)[1]
    assert alone.classes == train.classes and set(np.unique(alone.label(1))) == {0, 3}
    coco(tmp_path, "val", ["owl", "emu"])
    with pytest.raises(DataError, match="coco val: has the class 'emu', which the training set does not have"):
        open_sets(config_of(tmp_path, *keys, name="coco"), training=True)


def test_a_set_without_labels_cannot_train(tmp_path):
    with pytest.raises(ConfigError, match="this set has no labels"):
        checked(write_voc(tmp_path), "DATA.TRAIN", "test", name="voc")

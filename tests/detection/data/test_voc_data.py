"""PASCAL VOC: layouts, unions, difficult objects, boxes as detectron2 has them, and faults in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from voc_sample import annotation, write_year

import detection
from backbone.common.errors import DataError
from detection.data import catalog
from detection.data.catalog import locate, parts_of
from detection.data.sets import join_sets
from detection.data.voc import VOC_CLASSES, find_split, read_split, split_of_folder
from detection.data.voc.build import build_voc_set
from detection.engine.datasets import load_sets

CAT, HARD_DOG = ("cat", (1, 1, 60, 40), False), ("dog", (5.5, 6, 20, 30), True)


@pytest.fixture
def root(tmp_path) -> Path:
    """Both years: 07 under VOCdevkit, three images; 12 likewise, its test split without annotations."""
    kit = tmp_path / "VOCdevkit"
    write_year(
        kit / "VOC2007",
        {"000005": [CAT, HARD_DOG], "000007": [HARD_DOG], "000009": [CAT]},
        {"trainval": ["000005", "000007"], "test": ["000009"]},
    )
    year = write_year(
        kit / "VOC2012",
        {"2008_000002": [CAT, CAT], "2008_000003": []},
        {"train": ["2008_000002"], "val": ["2008_000003"], "trainval": ["2008_000002", "2008_000003"]},
    )
    image = (year / "JPEGImages" / "2008_000002.jpg").read_bytes()
    (year / "JPEGImages" / "2008_000001.jpg").write_bytes(image)
    (year / "ImageSets" / "Main" / "test.txt").write_text("2008_000001\n")
    return tmp_path


def config(root: Path, train: object, test: object = (), *more: object):
    given = ["DATASETS.ROOT", str(root), "DATASETS.TRAIN", train, "DATASETS.TEST", test, *more]
    return detection.get_config("mini_faster_rcnn_r18.yaml", given)


def test_both_layouts_and_the_folder_itself(root):
    kit = root / "VOCdevkit"
    for given in (root, kit, kit / "VOC2007"):
        assert find_split(given, 2007, "test").folder == kit / "VOC2007"
    source = locate("voc_2007_test", root)
    assert source.official and source.voc.annotated and source.voc.year == 2007
    assert source.image_folder == kit / "VOC2007" / "JPEGImages"
    assert not locate("voc_2012_test", kit).voc.annotated
    assert {f"voc_2012_{split}" for split in ("train", "val", "trainval", "test")} <= set(catalog.known_sets())


def test_difficult_objects_are_left_out_of_training_by_a_key(root):
    left = load_sets(config(root, ("voc_2007_trainval",)), training=True).train
    assert (len(left), len(left.boxes), left.difficult, left.trainable().tolist()) == (2, 1, 2, [0])
    kept = load_sets(config(root, ("voc_2007_trainval",), (), "DATASETS.VOC_DIFFICULT", True), training=True).train
    assert (len(kept.boxes), kept.difficult, kept.trainable().tolist()) == (3, 0, [0, 1])
    # Parts of objects are none; fractions of pixels stay.
    np.testing.assert_array_equal(kept.boxes, [[0, 0, 60, 40], [4.5, 5, 20, 30], [4.5, 5, 20, 30]])
    assert [kept.classes[label] for label in kept.labels] == ["cat", "dog", "dog"]
    assert kept.image_ids.tolist() == ["000005", "000007"] and kept.category_ids == list(range(1, 21))


@pytest.mark.parametrize(
    ("union", "ids"),
    [
        ("voc_0712", ["000005", "000007", "2008_000002", "2008_000003"]),
        ("voc_0712plus", ["000005", "000007", "000009", "2008_000002", "2008_000003"]),
    ],
)
def test_unions(root, union, ids):
    train = load_sets(config(root, (union,)), training=True).train
    assert train.image_ids.tolist() == ids
    by_name = load_sets(config(root, parts_of(union)), training=True).train
    assert by_name.files == train.files and np.array_equal(by_name.boxes, train.boxes)
    assert all(train.path(index).is_file() for index in range(len(train)))
    with pytest.raises(DataError, match=f"{union} is a union for training; name its parts instead: voc_2007_trainval"):
        load_sets(config(root, (union,), (union,)), training=True)


def test_a_set_without_annotations_can_be_detected_on_but_not_trained_on(root):
    test = load_sets(config(root, ("voc_2012_train",), ("voc_2012_test",)), training=True).test[0]
    assert not test.has_truth and not len(test.images.boxes)
    assert test.images.size(0) == (60, 40)
    with pytest.raises(DataError, match="voc_2012_test has no annotations to train on"):
        load_sets(config(root, ("voc_2012_test",)), training=True)


def test_masks_are_refused(root):
    with pytest.raises(ValueError, match="no masks; set MODEL.MASK_ON False"):
        load_sets(config(root, ("voc_2012_train",), (), "MODEL.MASK_ON", True), training=True)


def test_real_annotations_are_those_of_detectron2(shared_data, monkeypatch):
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

    # Gone from numpy since 1.24.
    monkeypatch.setitem(vars(np), "str", str)
    assert VOC_CLASSES == CLASS_NAMES
    source = locate("voc_2012_trainval", shared_data)
    expected = load_voc_instances(str(source.voc.folder), "trainval", CLASS_NAMES)
    found = build_voc_set(read_split(source.voc), name=source.name, difficult=True)
    assert found.image_ids.tolist() == [str(record["image_id"]) for record in expected]
    assert [found.size(i) for i in range(len(found))] == [(record["width"], record["height"]) for record in expected]
    assert str(found.path(3)) == expected[3]["file_name"]
    for index, record in enumerate(expected):
        rows = slice(found.starts[index], found.starts[index + 1])
        np.testing.assert_array_equal(found.boxes[rows], [item["bbox"] for item in record["annotations"]])
        assert found.labels[rows].tolist() == [item["category_id"] for item in record["annotations"]]
    objects = read_split(source.voc)
    assert (len(objects.labels), objects.difficult.sum()) == (273, 38)
    without = build_voc_set(objects, name="", difficult=False)
    assert (len(without.boxes), without.difficult) == (235, 38)


def test_joins_with_another_split(shared_data):
    parts = [
        build_voc_set(read_split(locate(f"voc_2012_{split}", shared_data).voc), name=split, difficult=False)
        for split in ("train", "val")
    ]
    joined = join_sets(parts)
    assert len(joined) == 100 and joined.difficult == 38 and len(joined.boxes) == joined.starts[-1] == 235


def test_a_file_takes_few_steps(shared_data, count_calls):
    """The largest union has 21,500 files."""
    source = locate("voc_2012_trainval", shared_data)
    files = len(read_split(source.voc).ids)
    assert count_calls(read_split, source.voc) < 200 * files


def write(root: Path, text: str, name: str = "000005") -> None:
    (root / "VOCdevkit" / "VOC2007" / "Annotations" / f"{name}.xml").write_text(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not-xml: .*000005.xml: is empty; unpack the annotations again"),
        ("<annotation><size>", "not-xml: .*is no XML"),
        ("<html></html>", "not-an-annotation: .*<html> at the top"),
        ("<annotation></annotation>", "bad-size: .*size/width is ''"),
        (annotation([CAT], size=("1e400", 40)), "bad-size: .*size/width is '1e400'"),
        (annotation([CAT], size=(60, 0)), "bad-size: .*size/height is '0'"),
        pytest.param("<annotation>" * 100_000, "not-xml", id="deep"),
        (annotation([("kat", (1, 1, 2, 2), False)]), "unknown-class: .*object 1 is a 'kat'; did you mean 'cat'"),
        (annotation([("cat", ("a", 1, 2, 2), False)]), "bad-number: .*object 1 has the box"),
        (annotation([CAT]).replace("<difficult>0", "<difficult>maybe"), "bad-number: .*<difficult> 'maybe'"),
        (annotation([CAT]).replace("<ymin>1</ymin>", "", 1), "missing-value: .*object 1 has no <ymin>"),
        (annotation([CAT]).replace("name>", "nom>"), "missing-value: .*object 1 has no <name>"),
        (annotation([CAT, ("cat", (9, 1, 8, 2), False)]), "empty-box: .*object 2 has the box"),
        (annotation([("cat", (61, 1, 70, 9), False)]), "box-outside: .*in an image of 60 x 40"),
        (annotation([("cat", ("nan", 1, 70, 9), False)]), "nan-box: .*write finite numbers"),
    ],
)
def test_faults_are_one_line(root, text, message):
    write(root, text)
    with pytest.raises(DataError, match=message) as caught:
        read_split(locate("voc_2007_trainval", root).voc, refuse_boxes=True)
    assert "\n" not in str(caught.value) and "trainval.txt" in str(caught.value)


def test_all_faults_are_counted(root):
    for name in ("000005", "000007"):
        write(root, annotation([("kat", (1, 1, 2, 2), False)] * 2), name)
    with pytest.raises(DataError, match="unknown-class: .*000005.xml: .*and 3 more errors"):
        read_split(locate("voc_2007_trainval", root).voc)


@pytest.mark.parametrize(("policy", "skipped"), [("auto", 1), ("skip", 1), ("refuse", None)])
def test_bad_boxes_follow_the_key(root, policy, skipped):
    write(root, annotation([CAT, ("cat", (9, 1, 8, 2), False)]))
    settings = config(root, ("voc_2007_trainval",), (), "DATASETS.BAD_BOXES", policy)
    if skipped is None:
        with pytest.raises(DataError, match="empty-box"):
            load_sets(settings, training=True)
    else:
        assert load_sets(settings, training=True).train.skipped == skipped


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><annotation><size>&b;</size></annotation>'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_entities_are_refused(root, encoding):
    path = root / "VOCdevkit" / "VOC2007" / "Annotations" / "000005.xml"
    path.write_bytes(BOMB.encode(encoding))
    with pytest.raises(DataError, match="unsafe-xml: .*has a document type"):
        read_split(locate("voc_2007_trainval", root).voc)


def test_an_outside_file_is_not_read(root):
    path = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "trainval.txt"
    path.write_text("../../secret\n")
    with pytest.raises(DataError, match="line 1: '../../secret' is no image id"):
        read_split(locate("voc_2007_trainval", root).voc)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda year: (year / "ImageSets/Main/test.txt").unlink(), "no split 'test'; known: trainval"),
        (lambda year: (year / "ImageSets/Main/test.txt").write_text("\n"), "lists no image"),
        (lambda year: (year / "ImageSets/Main/test.txt").write_text("000009\n000009\n"), "stands in line 1 too"),
        (lambda year: (year / "Annotations/000009.xml").unlink(), "missing-annotation: .*000009.xml does not exist"),
        (lambda year: (year / "JPEGImages/000009.jpg").unlink(), "missing-image: .*000009.jpg does not exist"),
        (lambda year: (year / "ImageSets").rename(year / "Sets"), "no folder ImageSets/Main"),
        (
            lambda year: year.rename(year.with_name("VOC07")),
            "--data-root must name the folder that holds VOCdevkit/VOC2007",
        ),
    ],
)
def test_missing_parts_are_named(root, break_it, message):
    break_it(root / "VOCdevkit" / "VOC2007")
    with pytest.raises(DataError, match=message) as caught:
        load_sets(config(root, ("voc_2012_train",), ("voc_2007_test",)), training=True)
    assert "\n" not in str(caught.value)


def test_the_devkit_itself_in_place_of_a_year(root):
    with pytest.raises(DataError, match="it holds VOC2007, VOC2012: give one of them"):
        split_of_folder(root / "VOCdevkit", "val")
    assert not split_of_folder(root / "VOCdevkit" / "VOC2012", "test").annotated
    assert split_of_folder(root / "VOCdevkit" / "VOC2012", "val").annotated


def test_a_named_pipe_among_the_images_is_no_image(root):
    image = root / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000005.jpg"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(DataError, match="missing-image: .*000005.jpg does not exist"):
        read_split(locate("voc_2007_trainval", root).voc)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_and_annotations_with_byte_order_marks(root, encoding):
    year = root / "VOCdevkit" / "VOC2007"
    expected = read_split(locate("voc_2007_trainval", root).voc)
    for path in (year / "ImageSets/Main/trainval.txt", *(year / "Annotations").glob("*.xml")):
        path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    found = read_split(locate("voc_2007_trainval", root).voc)
    assert found.ids == expected.ids and np.array_equal(found.boxes, expected.boxes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"000005\n\xff\n", "trainval.txt, line 2: byte 0xff is no text"),
        (b"a\0b\n", "trainval.txt, line 1: has a zero byte"),
        (b"x" * 300, "missing-image: .*xxx.jpg does not exist"),
    ],
)
def test_lists_that_are_no_text(root, content, message):
    (root / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_split(split_of_folder(root / "VOCdevkit" / "VOC2007", "trainval"))

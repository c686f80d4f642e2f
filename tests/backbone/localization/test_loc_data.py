"""ImageNet CLS-LOC in its official layout, and the localisation error by plain loops."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ilsvrc_sample import write_loc

from backbone import DataError
from backbone.localization import default_config
from backbone.localization.data import open_sets
from backbone.localization.evaluation import localization_errors, submission


def settings(root: Path, **changes: object):
    config = default_config()
    config.DATA.ROOT = str(root)
    for key, value in changes.items():
        config.DATA[key] = value
    return config


@pytest.fixture
def root(tmp_path) -> Path:
    write_loc(tmp_path, ())
    return tmp_path


def as_table(root: Path, split: str) -> None:
    """Write LOC_<split>_solution.csv of the annotations, and remove these."""
    folder = root / "ILSVRC/Annotations/CLS-LOC" / split
    lines = ["ImageId,PredictionString"]
    for path in sorted(folder.rglob("*.xml")):
        words = [
            " ".join(
                item.findtext(key) for key in ("name", *(f"bndbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax")))
            )
            for item in ElementTree.parse(path).iter("object")
        ]
        lines.append(f"{path.stem},{' '.join(words)} ")
        path.unlink()
    (root / f"LOC_{split}_solution.csv").write_text("\n".join(lines) + "\n")


def test_boxes_are_those_of_the_files(root):
    train, val = open_sets(settings(root), training=True)
    assert (len(train), len(val), len(train.classes)) == (8, 4, 4) and "4 images without a box" in train.note
    for images in (train, val):
        for index, file in enumerate(images.files.tolist()):
            tree = ElementTree.parse((root / "ILSVRC/Annotations/CLS-LOC" / file).with_suffix(".xml"))
            # Files count from 0 and include the last pixel; boxes are edges.
            expected = [
                [
                    float(item.findtext(f"bndbox/{side}")) + (side[1:] == "max")
                    for side in ("xmin", "ymin", "xmax", "ymax")
                ]
                for item in tree.iter("object")
            ]
            assert images.boxes_of(index).tolist() == expected
            assert images.classes[images.labels[index]] == tree.findtext("object/name")
            assert images.content(index).size
    assert train.first(3).boxes_of(2).tolist() == train.boxes_of(2).tolist() and len(train.first(3)) == 3


def test_tables_say_the_same_as_annotations(root):
    expected = open_sets(settings(root), training=True)
    for split in ("train", "val"):
        as_table(root, split)
    for one, other in zip(open_sets(settings(root), training=True), expected):
        assert one.files.tolist() == other.files.tolist() and one.labels.tolist() == other.labels.tolist()
        assert one.boxes.tolist() == other.boxes.tolist() and one.starts.tolist() == other.starts.tolist()


def test_the_test_set_has_images_alone(root):
    _, test = open_sets(settings(root, VAL="test"), training=False)
    assert len(test) == 2 and not test.has_truth
    with pytest.raises(DataError, match="'test': this set has no boxes"):
        open_sets(settings(root, TRAIN="test"), training=True)


def test_classes_follow_from_folders_without_the_mapping(root):
    (root / "LOC_synset_mapping.txt").unlink()
    assert open_sets(settings(root), training=False)[1].classes == [
        f"n0{1440764 + 7 * place:07d}" for place in range(4)
    ]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "ILSVRC").rename(root / "x"), "--data-root must name the folder that holds ILSVRC/"),
        (lambda root: (root / "ILSVRC/Data/CLS-LOC/val").rename(root / "x"), "CLS-LOC/val does not exist; unpack"),
        (lambda root: (root / "ILSVRC/Annotations").rename(root / "x"), "nor .*LOC_val_solution.csv; one of them"),
        (lambda root: (root / "LOC_synset_mapping.txt").write_text("a\na\n"), "must hold different wnids"),
        (lambda root: (root / "LOC_synset_mapping.txt").write_text("n00000001 x\n"), "which is no class of LOC_synset"),
        (
            lambda root: next((root / "ILSVRC/Data/CLS-LOC/val").iterdir()).unlink(),
            "no image ILSVRC2012_val_0000000..JPEG, which .*xml has; unpack",
        ),
        (
            lambda root: (root / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml").write_text("<a>"),
            "ILSVRC2012_val_00000002.xml: is no XML",
        ),
        (
            lambda root: (root / "LOC_val_solution.csv").write_text("ILSVRC2012_val_00000001,n01440764 1 2 3\n"),
            "line 1: .*a line is ImageId,wnid xmin ymin xmax ymax",
        ),
        (
            lambda root: (root / "LOC_val_solution.csv").write_text("ILSVRC2012_val_00000001,n01440764 9 2 3 nan\n"),
            "has the box .*xmax and ymax are at least",
        ),
        (
            lambda root: (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n"),
            "names no image with a box",
        ),
    ],
)
def test_bad_layouts_are_one_line(root, break_it, message):
    break_it(root)
    with pytest.raises(DataError, match=message) as caught:
        open_sets(settings(root), training=False)
    assert "\n" not in str(caught.value)


def plain_errors(found: dict, images) -> list[float]:
    """Return top-1 and top-5 error by the development kit's loops, with first and last pixels as it has them."""
    wrong = [0, 0]
    for index, (classes, boxes) in found.items():
        errors = []
        for guess, box in zip(classes, boxes):
            best = 1
            if guess == images.labels[index]:
                for truth in images.boxes_of(index):
                    x0, y0, x1, y1 = box[0], box[1], box[2] - 1, box[3] - 1
                    a0, b0, a1, b1 = truth[0], truth[1], truth[2] - 1, truth[3] - 1
                    width, height = min(x1, a1) - max(x0, a0) + 1, min(y1, b1) - max(y0, b0) + 1
                    shared = width * height if width > 0 and height > 0 else 0
                    union = (x1 - x0 + 1) * (y1 - y0 + 1) + (a1 - a0 + 1) * (b1 - b0 + 1) - shared
                    best = min(best, int(shared / union < 0.5))
            errors.append(best)
        wrong[0] += errors[0]
        wrong[1] += min(errors)
    return [number / len(found) for number in wrong]


def test_errors_are_those_of_plain_loops(tmp_path):
    write_loc(tmp_path, (), val=40)
    _, images = open_sets(settings(tmp_path), training=False)
    random = np.random.default_rng(0)
    found = {}
    for index in range(len(images)):
        boxes = images.boxes_of(index)[[0] * 3] + random.normal(0, 4, (3, 4))
        found[index] = (random.permutation(4)[:3].tolist(), boxes)
    # At IoU 0.5 itself a guess is right.
    whole = images.boxes_of(0)[0]
    half = whole.copy()
    half[2] = (whole[0] + whole[2]) / 2
    found[0] = ([int(images.labels[0])], half[None])
    errors = localization_errors(found, images, true_classes=False)
    assert [errors["top1_error"], errors["top5_error"]] == pytest.approx(plain_errors(found, images))
    assert 0.1 < errors["class_top5_error"] <= errors["top5_error"] < errors["top1_error"] < 1
    given = {index: ([int(images.labels[index])], boxes[:1]) for index, (_, boxes) in found.items()}
    assert localization_errors(given, images, true_classes=True)["true_class_error"] == plain_errors(given, images)[0]
    lines = submission(
        {0: ([2, 0], np.array([[0, 0, 10, 20], [1.2, 2, 5.6, 9]]))}, ["ILSVRC2012_test_00000001"]
    ).splitlines()
    assert lines == ["ImageId,PredictionString", "ILSVRC2012_test_00000001,3 0 0 9 19 1 1 2 5 8"]

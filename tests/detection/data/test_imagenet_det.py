"""ImageNet DET: the layout of the archives, its 200 classes, val in two halves, and AP as plain loops count it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ilsvrc_sample import write_det
from PIL import Image

from backbone import DataError
from detection.data.catalog import known_sets, locate
from detection.data.voc import read_split
from detection.data.voc.build import build_voc_set
from detection.data.voc.det import first_half
from detection.data.voc.det_classes import DET_CLASSES, DET_WNIDS
from detection.evaluation import evaluate_voc
from detection.evaluation.voc_detections import VocDetections, write_det_submission


@pytest.fixture
def root(tmp_path) -> Path:
    write_det(tmp_path)
    return tmp_path


def objects_of(root: Path, split: str):
    return read_split(locate(f"imagenet_det_{split}", root).voc)


def test_the_classes_are_two_hundred_by_wnid():
    assert len(set(DET_WNIDS)) == len(set(DET_CLASSES)) == 200
    pairs = dict(zip(DET_WNIDS, DET_CLASSES))
    # The first, the last and some between, as the development kit numbers them.
    assert (DET_CLASSES[0], DET_CLASSES[199], DET_CLASSES.index("person")) == ("accordion", "zebra", 123)
    assert (pairs["n02084071"], pairs["n04530566"], pairs["n00007846"]) == ("dog", "watercraft", "person")
    assert sorted(DET_CLASSES, key=lambda name: name.lower()[:2]) == sorted(DET_CLASSES, key=lambda name: name[:2])
    assert {f"imagenet_det_{split}" for split in ("train", "val1", "val2", "test")} <= set(known_sets())


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_are_those_of_the_files(root, split):
    objects = objects_of(root, split)
    found = build_voc_set(objects, name=split, difficult=False)
    names = [line.split()[0] for line in (root / f"ILSVRC/ImageSets/DET/{split}.txt").read_text().splitlines()]
    assert list(found.image_ids) == [name for name in names if "extra" not in name]
    assert found.classes == list(DET_CLASSES) and found.category_ids == list(range(1, 201))
    for row, name in enumerate(found.image_ids):
        tree = ElementTree.parse(root / f"ILSVRC/Annotations/DET/{split}/{name}.xml")
        # Files count from 0 and include the last pixel; a DetectionSet has edges.
        expected = [
            [float(item.findtext(f"bndbox/{side}")) + (side[1:] == "max") for side in ("xmin", "ymin", "xmax", "ymax")]
            for item in tree.iter("object")
        ]
        rows = slice(found.starts[row], found.starts[row + 1])
        assert found.boxes[rows].tolist() == expected
        assert [DET_WNIDS[label] for label in found.labels[rows]] == [
            item.findtext("name") for item in tree.iter("object")
        ]
        with Image.open(found.path(row)) as image:
            assert image.size == found.size(row)


def test_the_test_set_has_no_annotations(root):
    objects = objects_of(root, "test")
    assert len(objects.ids) == 2 and not len(objects.labels) and not objects.split.annotated


def test_the_halves_of_val_share_it(root):
    whole, first, second = (objects_of(root, split) for split in ("val", "val1", "val2"))
    assert sorted(first.ids + second.ids) == whole.ids and first.ids and second.ids
    for half in (first, second):
        assert half.ids == [name for name in whole.ids if name in half.ids]
        for row, name in enumerate(half.ids):
            place = whole.ids.index(name)
            assert whole.boxes[whole.image == place].tolist() == half.boxes[half.image == row].tolist()
            assert whole.sizes[place].tolist() == half.sizes[row].tolist()
    # Lists, as the authors of R-CNN gave them out, go before the rule.
    lists = root / "ILSVRC/ImageSets/DET"
    (lists / "val1.txt").write_text(f"{whole.ids[4]}\n")
    with pytest.raises(DataError, match="holds val1.txt without the other half"):
        locate("imagenet_det_val2", root)
    (lists / "val2.txt").write_text(f"{whole.ids[0]} 1\n{whole.ids[2]} 2\n")
    assert objects_of(root, "val1").ids == [whole.ids[4]]
    assert objects_of(root, "val2").ids == [whole.ids[0], whole.ids[2]]


def test_both_halves_have_like_numbers_of_each_class():
    random = np.random.default_rng(0)
    images, classes = 3000, 200
    # Classes as rare and as frequent as in val: 31 to 12,823 objects.
    shares = random.pareto(1.2, classes) + 0.03
    labels = random.choice(classes, 8000, p=shares / shares.sum())
    image = random.integers(0, images, len(labels))
    first = first_half(image, labels, images)
    assert abs(int(first.sum()) - images / 2) < 0.1 * images
    counts = [[0, 0] for _ in range(classes)]
    for owner, label in zip(image.tolist(), labels.tolist()):
        counts[label][int(first[owner])] += 1
    # Halves by chance differ by about 1 / sqrt(n) of a class's n objects.
    imbalances = [abs(a - b) / (a + b) for a, b in counts if a + b > 1]
    chance = [(a + b) ** -0.5 for a, b in counts if a + b > 1]
    assert np.mean(imbalances) < 0.3 * np.mean(chance) and np.median(imbalances) < 0.06
    assert (first_half(image, labels, images) == first).all()


def plain_ap(objects, found, label: int) -> float | None:
    """Return VOC's AP by area at IoU .5 of a class, one detection after the other."""
    truth = [(row, box) for row, box, own in zip(objects.image, objects.boxes, objects.labels) if own == label]
    if not truth:
        return None
    mine = [place for place in range(len(found.labels)) if found.labels[place] == label]
    mine.sort(key=lambda place: -found.scores[place])
    taken, right, points = set(), 0, []
    for rank, place in enumerate(mine, 1):
        best, owner = 0.5, None
        for index, (row, box) in enumerate(truth):
            x0, y0, x1, y1 = found.boxes[place]
            width = min(x1, box[2]) - max(x0, box[0]) + 1
            height = min(y1, box[3]) - max(y0, box[1]) + 1
            if row != found.image[place] or width <= 0 or height <= 0:
                continue
            union = (x1 - x0 + 1) * (y1 - y0 + 1) + (box[2] - box[0] + 1) * (box[3] - box[1] + 1) - width * height
            if width * height / union > best:
                best, owner = width * height / union, index
        if owner is not None and owner not in taken:
            taken.add(owner)
            right += 1
        points.append((right / len(truth), right / rank))
    area, before = 0.0, 0.0
    for recall, _ in points:
        area += (recall - before) * max(precision for other, precision in points if other >= recall)
        before = recall
    return area


def test_map_is_that_of_plain_loops(tmp_path):
    write_det(tmp_path, val=12)
    objects = objects_of(tmp_path, "val")
    random = np.random.default_rng(0)
    source = random.integers(0, len(objects.labels), 60)
    boxes = objects.boxes[source] + random.normal(0, 2, (60, 4)) * random.integers(0, 3, (60, 1))
    labels = np.where(random.random(60) < 0.2, random.integers(0, 200, 60), objects.labels[source])
    found = VocDetections(objects.image[source], labels, random.random(60), boxes)
    metrics = evaluate_voc(objects, found)
    assert metrics.metric == "voc10"
    expected = {label: ap for label in range(200) if (ap := plain_ap(objects, found, label)) is not None}
    per_class = metrics.to_json()["bbox"]["per_class"]
    for label, ap in expected.items():
        assert per_class[DET_CLASSES[label]]["AP50"] == pytest.approx(ap)
    assert 0.05 < metrics.figures("voc10")["AP50"] < 0.95
    assert metrics.figures("voc10")["AP50"] == pytest.approx(np.mean(list(expected.values())))
    write_det_submission(found, tmp_path / "found.txt", objects.split.first_pixel)
    lines = [line.split() for line in (tmp_path / "found.txt").read_text().splitlines()]
    assert [(int(line[0]), int(line[1])) for line in lines] == list(zip(found.image + 1, found.labels + 1))
    assert np.array([line[3:] for line in lines], dtype=float).tolist() == (found.boxes - 1).tolist()


@pytest.mark.parametrize(
    ("split", "break_it", "message"),
    [
        (
            "val",
            lambda root: (root / "ILSVRC").rename(root / "other"),
            "--data-root must name the folder that holds ILSVRC/",
        ),
        ("val2", lambda root: (root / "ILSVRC/ImageSets/DET/val.txt").unlink(), "val.txt does not exist: it lists"),
        ("test", lambda root: (root / "ILSVRC/Data/DET/test").rename(root / "gone"), "DET/test does not exist; unpack"),
        ("val", lambda root: (root / "ILSVRC/Annotations/DET").rename(root / "gone"), "DET/val does not exist; unpack"),
        (
            "train",
            lambda root: (root / "ILSVRC/Data/DET/train/ILSVRC2014_train_0000").rename(root / "gone"),
            "missing-image: .*ILSVRC2014_train_00000001.JPEG does not exist",
        ),
        (
            "train",
            lambda root: next((root / "ILSVRC/Annotations").rglob("n02084071_20.xml")).unlink(),
            "missing-annotation: .*n02084071_20.xml does not exist",
        ),
        (
            "val",
            lambda root: next((root / "ILSVRC/Annotations").rglob("*_00000002.xml")).write_text("<a>"),
            "not-xml: .*_00000002.xml: is no XML",
        ),
        (
            "val1",
            lambda root: [
                path.write_text(path.read_text().replace("<name>n", "<name>x"))
                for path in (root / "ILSVRC/Annotations").rglob("*_00000003.xml")
            ],
            "unknown-class: .*object 1 is a 'x.*wnids of ImageNet DET",
        ),
        (
            "val",
            lambda root: (root / "ILSVRC/ImageSets/DET/val.txt").write_text("a/../../secret 1\n"),
            "is no image id",
        ),
    ],
)
def test_bad_layouts_are_one_line(root, split, break_it, message):
    break_it(root)
    with pytest.raises(DataError, match=message) as caught:
        objects_of(root, split)
    assert "\n" not in str(caught.value)

"""Own classes: their names and lists, sets that lack one, and no figures that are not theirs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from backbone.classification.config import default_config, load_config
from backbone.classification.data import open_sets
from backbone.classification.networks import build, resolve_classes
from backbone.classification.results import results_table
from backbone.classification.task import test_networks as run_tests
from backbone.common.errors import DataError


def write(root, split, classes, number=2, flat=False):
    for name in classes:
        folder = root / split if flat else root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(number):
            file = f"{name} {index}.png" if flat else f"{index}.png"
            cv2.imwrite(str(folder / file), np.full((40, 40, 3), 20 * index, np.uint8))


def config_of(root, *overrides):
    keys = ["DATA.NAME", "folder", "DATA.ROOT", str(root), "MODEL.DEVICE", "cpu", *overrides]
    return load_config("imagenet_resnet18.yaml", keys)


CLASSES = ("great white", "n00000001", "owl")


def test_class_names_with_blanks(tmp_path):
    write(tmp_path, "train", CLASSES)
    write(tmp_path, "val", CLASSES[:2])
    (tmp_path / "names.txt").write_text("owl\n great white \nn00000001 tench, Tinca tinca\n")
    train, test = open_sets(config_of(tmp_path, "DATA.CLASSES", str(tmp_path / "names.txt")), training=True)
    assert train.classes == test.classes == ["owl", "great white", "n00000001"]
    assert train.labels.tolist() == [1, 1, 2, 2, 0, 0] and test.labels.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "lines",
    [
        "great white 0.png great white\ngreat white 1.png 0\nowl 0 2\nowl 1.png owl\n",
        "val/great white 0.png\tgreat white\ngreat white 1 great white\nowl 0.png   owl\nowl 1 owl\nother.png owl\n",
        "great white\ngreat white\nowl\nowl\n",
        "ImageId,PredictionString\ngreat white 0,0 1 2 3\ngreat white 1,0\nowl 0,2\nowl 1,owl\n",
    ],
)
def test_lists_of_images_with_blanks(tmp_path, lines):
    write(tmp_path, "train", CLASSES)
    write(tmp_path, "val", ("great white", "owl"), flat=True)
    path = tmp_path / ("list.csv" if "ImageId" in lines else "list.txt")
    path.write_text(lines)
    _, test = open_sets(config_of(tmp_path, "DATA.VAL_SYNSETS", str(path)), training=True)
    assert test.labels.tolist() == [0, 0, 2, 2]


def test_two_images_of_one_name_have_a_line_each(tmp_path):
    write(tmp_path, "train", CLASSES)
    write(tmp_path, "val", ("a",), number=1, flat=True)
    image = tmp_path / "val" / "a 0.png"
    image.with_suffix(".jpg").write_bytes(image.read_bytes())
    (tmp_path / "val.txt").write_text("a 0.jpg 2\na 0.png 1\n")
    assert open_sets(config_of(tmp_path), training=True)[1].labels.tolist() == [2, 1]
    (tmp_path / "val.txt").write_text("a 0.png 1\nb.png 1\n")
    with pytest.raises(DataError, match=r"val.txt: has no line for a 0.jpg"):
        open_sets(config_of(tmp_path, "DATA.TRAIN_IMAGES", 1), training=True)


def test_a_test_on_a_set_that_lacks_a_class(tmp_path):
    write(tmp_path, "val", ("owl", "great white"))
    _, alone = open_sets(config_of(tmp_path), training=False)
    _, test = open_sets(config_of(tmp_path), training=False, classes=CLASSES)
    assert alone.classes == ["great white", "owl"] and test.classes == list(CLASSES)
    assert test.labels.tolist() == [0, 0, 2, 2]
    (tmp_path / "synsets.txt").write_text("owl\ngreat white\n")
    assert open_sets(config_of(tmp_path), training=False, classes=CLASSES)[1].labels.tolist() == [0, 0, 2, 2]
    (tmp_path / "synsets.txt").unlink()
    with pytest.raises(DataError, match="folder 'owl' is no class"):
        open_sets(config_of(tmp_path), training=False, classes=("cat", "great white"))


def test_one_class_alone_is_refused(tmp_path):
    write(tmp_path, "train", ("owl",))
    write(tmp_path, "val", ("owl",))
    with pytest.raises(DataError, match="has one class alone, 'owl'"):
        open_sets(config_of(tmp_path), training=True)


@pytest.mark.parametrize(
    ("file", "classes", "cited"),
    [
        ("imagenet_resnet50.yaml", 1000, True),
        ("imagenet_resnet50.yaml", 3, False),
        ("cifar10_resnet20.yaml", 10, True),
        ("cifar10_resnet20.yaml", 100, False),
    ],
)
def test_the_papers_figures_stand_beside_its_own_data_alone(file, classes, cited):
    config = load_config(file, ["MODEL.DEVICE", "cpu"])
    settled = resolve_classes(config, [str(index) for index in range(classes)], set())
    assert classes == settled.MODEL.NUM_CLASSES and bool(settled.PAPER.ROWS) == cited
    own = load_config(
        file, ["MODEL.DEVICE", "cpu", *(["DATA.NAME", "folder"] if "imagenet" in file else ["DATA.SYNTHETIC", True])]
    )
    assert not resolve_classes(own, [str(index) for index in range(classes)], set()).PAPER.ROWS


def test_five_classes_or_fewer_have_no_top5_error(tmp_path):
    write(tmp_path, "val", CLASSES)
    keys = ("INPUT.TEST_SIZE", 32, "INPUT.TEST_SHORTER_SIDE", 32, "MODEL.NUM_CLASSES", 3, "DATALOADER.NUM_WORKERS", 0)
    config = config_of(tmp_path, "MODEL.SHORTCUT", "", *keys)
    images = open_sets(config, training=False)[1]
    network = build(config).eval()
    found = run_tests([network], [lambda pixels: pixels.float()], images, config, ("1crop",))
    results = {name: errors.figures() for name, errors in found.items()}
    assert 0 <= results["1crop"]["top1_error"] <= 1 and "top5_error" not in results["1crop"]
    cells = [cell.strip() for cell in results_table(results, default_config()).splitlines()[2].strip("|").split("|")]
    assert cells[2] == "-" and torch.is_tensor(network.fc.weight)

"""Label files of other forms: numbers by a map or shifted, colours, suffixes; trees of folders, and COCO JSON."""

from __future__ import annotations

import json
from argparse import Namespace

import cv2
import numpy as np
import pytest
from PIL import Image
from small_segmentation import CLASSES, scene, write_folders
from test_label_images import config_of, slow_labels

from backbone.common.errors import ConfigError, DataError
from backbone.segmentation.config import check_values
from backbone.segmentation.data import open_sets
from backbone.segmentation.data.cityscapes import IDS
from backbone.segmentation.data.labels import voc_palette
from backbone.segmentation.data.own import has_part
from backbone.segmentation.data.pairing import label_files, match_stems, open_labels, stem_below
from backbone.segmentation.evaluation import VOID
from backbone.segmentation.session import own_data

COLOURS = {0: (10, 20, 30), 1: (128, 64, 128), 2: (0, 0, 230), VOID: (255, 255, 255)}
NUMBERS = {0: 0, 1: 7, 2: 300, VOID: 9}


def painted(label: np.ndarray, colours: dict) -> np.ndarray:
    """Put a number or a colour at every pixel, one after the other."""
    values = [[colours[value] for value in row] for row in label.tolist()]
    return np.array(values, np.uint16 if isinstance(colours[0], int) else np.uint8)


def rewrite(root, change, suffix=""):
    """Write every label file anew, from its labels."""
    for file in sorted((root / "labels").glob("*/*.png")):
        label = np.asarray(Image.open(file)).copy()
        file.unlink()
        Image.fromarray(change(label)).save(file.with_name(f"{file.stem}{suffix}.png"))
    return root


def labels_of(root, **keys):
    config = config_of(root, NAME="folders", **keys)
    check_values(config, "test")
    _, val = open_sets(config, training=False)
    return val, [val.read(index)[1] for index in range(len(val))]


def expected():
    return [scene(100 + index)[1] for index in range(3)]


def palette_image(label):
    """A palette in an order of its own, as programs that count colours write it."""
    order = [2, 0, VOID, 1]
    image = Image.fromarray(np.select([label == value for value in order], range(4)).astype(np.uint8))
    image.putpalette([channel for value in order for channel in COLOURS[value]])
    return np.asarray(image), image


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("map", {"ID_MAP": "0: 0, 7: round, 300: 2, 9: void"}),
        ("map", {"ID_MAP": "{0:0,7:1,300:2,*:255}"}),
        ("map", {"ID_MAP": "map.json"}),
        ("shifted", {"REDUCE_ZERO_LABEL": True}),
        ("void", {"VOID_LABELS": (11,)}),
        ("suffix", {}),
        ("suffix", {"LABEL_SUFFIX": "_mask"}),
    ],
)
def test_numbers(tmp_path, monkeypatch, form, keys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.json").write_text(json.dumps({0: 0, 7: "round", 300: 2, 9: "void"}))
    change = {
        "map": lambda label: painted(label, NUMBERS),
        "shifted": lambda label: np.where(label == VOID, 0, label + 1).astype(np.uint8),
        "void": lambda label: np.where(label == VOID, 11, label).astype(np.uint8),
        "suffix": lambda label: label,
    }
    root = rewrite(write_folders(tmp_path / "set"), change[form], "_mask" if form == "suffix" else "")
    for found, label in zip(labels_of(root, **keys)[1], expected(), strict=True):
        assert np.array_equal(found, label)


@pytest.mark.parametrize(
    "listed",
    [
        "background 10 20 30\nround 128 64 128\nsquare 0 0 230\nvoid 255 255 255\n",
        "name,r,g,b\nbackground,10,20,30\nround,128,64,128\nsquare,0,0,230\nVoid,255,255,255\n",
        "# label:color_rgb\nbackground:10,20,30::\nround:128,64,128::\nsquare:0,0,230::\nignore:255,255,255::",
    ],
)
def test_colours(tmp_path, listed):
    root = rewrite(write_folders(tmp_path / "set"), lambda label: painted(label, COLOURS))
    file = root / "labels" / "val" / "1.png"
    palette_image(scene(101)[1])[1].save(file)
    (root / "classes.txt").write_text(listed)
    val, found = labels_of(root)
    assert val.classes == list(CLASSES)
    for one, label in zip(found, expected(), strict=True):
        assert np.array_equal(one, label)
    # Gray files are numbers; a colour that nothing names is a fault.
    Image.fromarray(scene(101)[1]).save(file)
    assert np.array_equal(labels_of(root)[1][1], scene(101)[1])
    Image.fromarray(np.full((72, 60, 3), 77, np.uint8)).save(file)
    with pytest.raises(DataError, match=r"1.png: the colour 77 77 77 at x 0, y 0 is none of the 4 in the list"):
        labels_of(root)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ID_MAP": "0: 0, 7: rund"}, "DATA.ID_MAP: 'rund' is none of the 3 classes .*did you mean 'round'"),
        ({"ID_MAP": "0: 0, 7: 3"}, r"DATA.ID_MAP: 3 is none of the 3 classes \(0 to 2, or a name\) and not void"),
        ({"ID_MAP": "nowhere.json"}, "nowhere.json does not exist"),
        ({"ID_MAP": "a: 0, b: 1"}, "a: 0, b: 1 does not exist"),
        ({"ID_MAP": "0: 0, 70000: 1"}, "70000 is no number in a label file"),
        ({"ID_MAP": "0: 0, 1: 1"}, r"label 2 at .* is none of the 3 .*DATA.ID_MAP has no such number"),
        ({"ID_MAP": "0: 0", "REDUCE_ZERO_LABEL": True}, "both renumber labels; give one"),
        ({"VOID_LABELS": (-1,)}, "DATA.VOID_LABELS must be whole numbers"),
        ({"REDUCE_ZERO_LABEL": True, "NAME": "mini"}, "DATA.REDUCE_ZERO_LABEL is for label images"),
        ({"LABEL_SUFFIX": "_no"}, "0_no.png: the label image does not exist"),
        ({"CLASSES": "none.txt"}, "none.txt does not exist; give the class names"),
    ],
)
def test_wrong_keys_are_named(tmp_path, keys, message):
    root = write_folders(tmp_path)
    with pytest.raises((ConfigError, DataError), match=message):
        config = config_of(root, **{"NAME": "folders", **keys})
        check_values(config, "test")
        labels_of(root, **keys)


@pytest.mark.parametrize("tree", ["masks", "parts", "beside", "beside png", "ade20k", "roboflow", "flat"])
def test_folders_as_people_have_them(tmp_path, tree):
    """Each is found from its path alone, as --train and --val name it."""
    root = write_folders(tmp_path / "set")
    for split in ("train", "val"):
        images, labels = root / "images" / split, root / "labels" / split
        if tree == "parts":
            (root / split).mkdir()
            images.rename(root / split / "images")
            labels.rename(root / split / "masks")
        elif tree.startswith("beside") or tree == "roboflow":
            (root / split).mkdir()
            for file in (*images.iterdir(), *labels.iterdir()):
                mark = "_mask" if file.parent == labels else ""
                end = ".png" if mark or tree == "beside png" else ".jpg"
                file.rename(root / split / f"{file.stem}{mark}{end}")
            if tree == "roboflow":
                (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, round\n2, square\n")
        elif tree == "ade20k":
            images.rename(images.with_name({"train": "training", "val": "validation"}[split]))
            labels.rename(labels.with_name({"train": "training", "val": "validation"}[split]))
    if tree == "roboflow":
        (root / "classes.txt").unlink()
    if tree in ("masks", "ade20k"):
        (root / "labels").rename(root / {"masks": "masks", "ade20k": "annotations"}[tree])
    paths = {"TRAIN": str(root), "VAL": str(root)}
    if tree == "flat":
        for split in ("train", "val"):
            (root / split).mkdir()
            for kind in ("images", "labels"):
                (root / kind / split).rename(root / split / kind)
            (root / split / "classes.txt").write_text((root / "classes.txt").read_text())
            paths[split.upper()] = str(root / split)
    train, val = open_sets(config_of(root, NAME="own", **paths), training=True)
    assert (len(train), len(val), val.classes) == (4, 3, list(CLASSES))
    for index, label in enumerate(expected()):
        assert np.array_equal(val.label(index), label)


def test_what_no_folder_of_ones_own_holds_is_named(tmp_path):
    root = write_folders(tmp_path / "set")
    (root / "labels" / "val").rename(root / "elsewhere")
    config = config_of(root, NAME="own", TRAIN=str(root), VAL=str(root))
    with pytest.raises(DataError, match=r"no set for segmentation in a known form \(for val\); looked for images/"):
        open_sets(config, training=True)
    with pytest.raises(DataError, match="nowhere does not exist; give a COCO JSON file"):
        open_sets(config_of(root, NAME="own", TRAIN=str(tmp_path / "nowhere"), VAL="x"), training=True)
    with pytest.raises(DataError, match="classes.txt: no set for segmentation; give a COCO JSON file or a folder"):
        open_sets(config_of(root, NAME="own", TRAIN=str(root / "classes.txt"), VAL="x"), training=True)


def test_cityscapes(tmp_path):
    random = np.random.default_rng(0)
    truth = {}
    for split, cities in {"train": ("aachen", "bochum"), "val": ("ulm",), "test": ("berlin",)}.items():
        for city in cities:
            stem = f"{city}_000000_000019"
            ids = random.integers(0, 34, (6, 8)).astype(np.uint8)
            ids[0, 0] = 255  # a licence plate, -1
            for kind, end, values in (
                ("leftImg8bit", "leftImg8bit", np.zeros((6, 8, 3), np.uint8)),
                ("gtFine", "gtFine_labelIds", ids),
            ):
                folder = tmp_path / kind / split / city
                folder.mkdir(parents=True)
                cv2.imwrite(str(folder / f"{stem}_{end}.png"), values)
            by_id = {number: label for label, number in enumerate(IDS.values())}
            truth[split] = np.array([[by_id.get(value, VOID) for value in row] for row in ids.tolist()])
    config = config_of(tmp_path, NAME="cityscapes")
    train, val = open_sets(config, training=True)
    assert (len(train), len(val), len(val.classes)) == (2, 1, 19)
    assert val.classes[:3] == ["road", "sidewalk", "building"] and val.classes[18] == "bicycle"
    assert np.array_equal(val.label(0), truth["val"])
    config.DATA.VAL = "test"
    _, test = open_sets(config, training=False)
    assert not test.has_truth and test.label(0) is None
    # Named alone, label files go through the same numbers; those in colours beside them are none.
    folder = tmp_path / "gtFine" / "val" / "ulm"
    cv2.imwrite(str(folder / "ulm_000000_000019_gtFine_color.png"), np.zeros((6, 8, 3), np.uint8))
    alone = open_labels(folder.parent, config_of(tmp_path).DATA, ["0", "1"])
    assert len(alone) == 1 and np.array_equal(alone.label(0), truth["val"]) and alone.classes == list(IDS)
    found = match_stems({0: stem_below(val.path(0), val.path(0).parent)}, label_files(folder))
    assert found[0].name == "ulm_000000_000019_gtFine_labelIds.png"
    (tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match="ulm_000000_000019_gtFine_labelIds.png: the label image does not exist"):
        open_sets(config_of(tmp_path, NAME="cityscapes"), training=False)


def test_voc_lists_with_blanks(tmp_path):
    from small_segmentation import write_voc

    folder = write_voc(tmp_path) / "VOCdevkit" / "VOC2012"
    for place, end in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (folder / place / f"2012_10.{end}").rename(folder / place / f"my 2nd photo.{end}")
    # The development kit's lists of one class have 1 or -1 behind the name.
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("  my 2nd photo  \n\n2012_11  1\n2012_12.jpg\n")
    _, val = open_sets(config_of(tmp_path), training=False)
    assert [val.path(index).name for index in range(3)] == ["my 2nd photo.jpg", "2012_11.jpg", "2012_12.jpg"]
    assert np.array_equal(val.label(0), scene(10)[1])


def test_cocos_own_file_named_by_its_path(shared_data, tmp_path):
    """All categories are classes, images without objects stay, and the folder of the images is found."""
    file = shared_data / "coco" / "annotations" / "instances_val2017.json"
    train, val = open_sets(config_of(tmp_path, NAME="own", TRAIN=str(file), VAL=str(file)), training=True)
    content = json.loads(file.read_text())
    names = [category["name"] for category in sorted(content["categories"], key=lambda one: one["id"])]
    assert len(train) == 50 and train.classes == ["background", *names] and val.name.endswith("(COCO JSON)")
    by_file = {image["file_name"]: image for image in content["images"]}
    assert np.array_equal(val.label(7), slow_labels(content, by_file[val.path(7).name], names))


def test_a_coco_file_of_ones_own(tmp_path):
    """Ids with gaps and in no order, two ids of one name, a category called background, an object without a mask."""
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.zeros((8, 10, 3), np.uint8))
    categories = [(7, "Mug"), (3, "mug"), (9, "background"), (12, "mug")]
    boxes = [(1, 0, 0, 2, 2), (2, 4, 0, 3, 2), (3, 0, 4, 3, 3), (4, 6, 5, 2, 2)]
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 10, "height": 8}],
        "categories": [{"id": identity, "name": name} for identity, name in categories],
        "annotations": [
            {
                "id": number,
                "image_id": 5,
                "category_id": categories[number - 1][0],
                "bbox": [x, y, w, h],
                "area": w * h,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]] if number != 3 else [],
            }
            for number, x, y, w, h in boxes
        ],
    }
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    keys = {"NAME": "own", "TRAIN": str(file), "VAL": str(file)}
    with pytest.raises(DataError, match="'a.png' is not found near it; --train-images names the images' folder"):
        open_sets(config_of(tmp_path, **keys), training=True)
    photos = str(tmp_path / "photos")
    train, _ = open_sets(config_of(tmp_path, **keys, TRAIN_FOLDER=photos, VAL_FOLDER=photos), training=True)
    assert train.classes == ["background", "mug", "Mug"]
    wanted = np.zeros((8, 10), np.uint8)
    wanted[0:2, 0:2], wanted[0:2, 4:7], wanted[5:7, 6:8] = 2, 1, 1
    assert np.array_equal(train.label(0), wanted)


def test_vocs_palette_is_read_by_number_without_colours(tmp_path):
    root = write_folders(tmp_path)
    assert np.array_equal(labels_of(root)[1][0], expected()[0])
    (root / "classes.txt").write_text(
        "\n".join(f"{name} {' '.join(map(str, voc_palette()[place]))}" for place, name in enumerate(CLASSES))
        + f"\nvoid {' '.join(map(str, voc_palette()[VOID]))}\n"
    )
    assert np.array_equal(labels_of(root)[1][0], expected()[0])


def flags(**given):
    names = ("train", "val", "split", "train_images", "val_images")
    return Namespace(eval_only=False, **{name: given.get(name) for name in names})


def test_a_share_is_held_out(tmp_path):
    root = write_folders(tmp_path / "set", {"train": 10})
    with pytest.raises(ConfigError, match="has no part to test on; give --val, or --split 0.1"):
        own_data(flags(train=str(root)))
    config = config_of(root)
    config.merge_from_list(own_data(flags(train=str(root), split=0.3)))
    train, test = open_sets(config, training=True)
    names = set(train.names()), set(test.names())
    assert len(names[0]) == 7 and len(names[1]) == 3 and not names[0] & names[1]
    for images in (train, test):
        for index, name in enumerate(images.names()):
            assert np.array_equal(images.label(index), scene(int(name))[1])
    assert set(open_sets(config, training=True)[1].names()) == names[1]
    # A run that goes on keeps the images that it began with.
    assert open_sets(config, training=True, held_out=["4"])[1].names() == ["4"]
    config.DATA.VAL_IMAGES = 1
    assert set(open_sets(config, training=True)[1].held_out) == names[1]
    config.SEED = 1
    assert set(open_sets(config, training=True)[1].names()) != names[1]
    assert own_data(flags(train="nowhere"))  # what opens it says that it is not there
    with pytest.raises(ConfigError, match="--split 2 is no share"):
        own_data(flags(train=str(root), split=2.0))


def test_one_json_file_is_not_tested_on_itself(shared_data):
    file = shared_data / "coco" / "annotations" / "instances_val2017.json"
    with pytest.raises(ConfigError, match="instances_val2017.json: has no part to test on"):
        own_data(flags(train=str(file)))
    assert has_part(shared_data / "coco", "val") and not has_part(file, "val")
    pairs = own_data(flags(train=str(shared_data / "coco")))
    config = config_of(shared_data)
    config.merge_from_list(pairs)
    train, val = open_sets(config, training=True)
    assert (train.path(0).parent.name, val.path(0).parent.name) == ("train2017", "val2017")

"""Data sets of one's own: every form gives the same boxes as the loop that wrote it, and what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import own_forms
import pytest
from own_forms import CLASSES, OBJECTS, put

import detection
from backbone import DataError
from detection.data.checks import check_coco, has_errors
from detection.data.own import choose_images, find_place, has_part, keep_images, read_place
from detection.data.own.writing import write_parts
from detection.data.sets import build_set
from detection.engine import datasets
from detection.engine.own_sets import own_data_keys

FORMS = {"coco": "COCO JSON", "voc": "PASCAL VOC XML", "yolo": "YOLO txt", "csv": "CSV"}


def read(path: Path, part: str = "train", classes: list[str] | None = None):
    own = read_place(find_place(path, part), classes)
    assert not has_errors([*own.faults, *check_coco(own.data, own.folder, source="it")])
    return build_set(own.data, name="it", folder=own.folder)


@pytest.mark.parametrize("name", own_forms.WRITERS)
def test_every_form_gives_the_boxes_that_were_written(name, tmp_path):
    images = read(own_forms.WRITERS[name](tmp_path))
    assert images.classes == CLASSES
    assert [Path(file).name for file in images.files] == list(OBJECTS)
    assert all(images.path(index).is_file() for index in range(3))
    assert images.sizes.tolist() == [[own_forms.WIDTH, own_forms.HEIGHT]] * 3
    written = [(CLASSES.index(what), *box) for name in OBJECTS for what, box in OBJECTS[name]]
    found = [(label, *box) for label, box in zip(images.labels.tolist(), images.boxes.tolist())]
    assert found == written
    assert images.starts.tolist() == [0, 2, 4, 4]


def test_polygons_of_yolo_become_masks_and_their_boxes(tmp_path):
    root = own_forms.label_studio_yolo(tmp_path)
    put(root / "labels/a.txt", "1 0.25 0.25 0.75 0.25 0.5 0.75")
    own = read_place(find_place(root))
    first = own.data["annotations"][0]
    assert first["bbox"] == [24, 18, 48, 36]
    assert first["segmentation"] == [[24, 18, 72, 18, 48, 54]]
    assert first["area"] == 48 * 36 / 2


def test_images_in_hidden_folders_are_none_of_a_yolo_set(tmp_path):
    root = own_forms.label_studio_yolo(tmp_path)
    own_forms.write_images(root / "images/.ipynb_checkpoints")
    assert len(read(root)) == 3


def test_parts_are_found_in_every_layout(tmp_path):
    for name in ("roboflow_coco", "roboflow_voc", "roboflow_csv", "cvat_voc"):
        assert not has_part(own_forms.WRITERS[name](tmp_path / name), "val")
    for part, images in (("train", "a\n"), ("val", "b\n"), ("test", "c\n")):
        put(tmp_path / f"cvat_voc/ImageSets/Main/{part}.txt", images)
    parts = [read(tmp_path / "cvat_voc", part, CLASSES).files for part in ("train", "val", "test")]
    assert parts == [["a.jpg"], ["b.jpg"], ["c.jpg"]]
    (tmp_path / "roboflow_coco/train").rename(tmp_path / "roboflow_coco/valid")
    own_forms.roboflow_coco(tmp_path / "roboflow_coco")
    assert has_part(tmp_path / "roboflow_coco", "val")
    assert find_place(tmp_path / "roboflow_coco", "val").source.parent.name == "valid"
    yaml = own_forms.roboflow_yolo(tmp_path / "yolo") / "data.yaml"
    assert not has_part(yaml, "val")  # described, but Roboflow leaves out a part without images
    own_forms.write_images(tmp_path / "yolo/valid/images")
    assert has_part(yaml, "val") and has_part(yaml.parent, "val")
    assert find_place(tmp_path / "yolo/train").form == "yolo"


def test_classes_of_the_training_set_hold_for_a_set_that_lacks_one(tmp_path):
    root = own_forms.roboflow_voc(tmp_path)
    put(root / "train/a.xml", own_forms.xml("b.jpg"))
    assert read(root).classes == ["dog"]
    assert read(root, classes=CLASSES).classes == CLASSES
    with pytest.raises(DataError, match=r"is a 'dog', the classes are cat, dig; did you mean 'dig'"):
        read(root, classes=["cat", "dig"])


def test_difficult_objects_are_marked_as_left_out(tmp_path):
    root = own_forms.roboflow_voc(tmp_path)
    put(root / "train/b.xml", own_forms.xml("b.jpg").replace("<difficult>0", "<difficult>1", 1))
    assert read(root).crowd.tolist() == [False, False, True, False]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation><filename>&b;</filename></annotation>'
YOLO, VOC, CSV = "labels/a.txt", "train/a.xml", "boxes.csv"
MISTAKES = {
    "class out of range": (
        "label_studio_yolo",
        YOLO,
        "2 .5 .5 .1 .1",
        r"a.txt, line 1: class 2, but .*classes.txt names 2",
    ),
    "negative class": ("label_studio_yolo", YOLO, "-1 .5 .5 .1 .1", "class -1"),
    "class by name": (
        "label_studio_yolo",
        YOLO,
        "cat .5 .5 .1 .1",
        "not all numbers; the class is written",
    ),
    "pixels": ("label_studio_yolo", YOLO, "0 50 30 20 10", "is in pixels; YOLO's numbers are shares"),
    "outside": ("label_studio_yolo", YOLO, "0 1.5 .5 .2 .1\n", "outside of the image"),
    "four columns": ("label_studio_yolo", YOLO, "0 .5 .5 .1", "4 columns; a box has 5"),
    "a score": ("label_studio_yolo", YOLO, "\n0 .5 .5 .1 .1 .9", "line 2: 6 columns.*score of a prediction"),
    "nan": ("label_studio_yolo", YOLO, "0 nan .5 .1 .1", "finite"),
    "not UTF-8": ("label_studio_yolo", YOLO, b"0 \xff\xfe", "a.txt, line 1: byte 0xff is no text in UTF-8"),
    "label without image": ("label_studio_yolo", "labels/z.txt", "0 .5 .5 .1 .1", "z.txt: no image of its name"),
    "fewer names": (
        "roboflow_yolo",
        "data.yaml",
        "train: train/images\nnc: 3\nnames: [a, b]",
        "nc is 3, but names has 2",
    ),
    "no names": ("roboflow_yolo", "data.yaml", "train: train/images", "names must be a list"),
    "code in YAML": ("roboflow_yolo", "data.yaml", "names: !!python/object/apply:os.system [ls]", "not plain data"),
    "no such folder": ("roboflow_yolo", "data.yaml", "train: images/no\nnames: [a, b]", "images/no does not exist"),
    "key points": ("roboflow_yolo", "data.yaml", "train: train/images\nkpt_shape: [3, 3]\nnames: [a, b]", "key points"),
    "a list that climbs": ("cvat_yolo", "train.txt", "../../etc/a.jpg", "leads out of the folder"),
    "a list of no image": ("cvat_yolo", "train.txt", "obj_train_data/no.jpg", "train.txt, line 1: no image"),
    "entities": ("roboflow_voc", VOC, BOMB, "unsafe-xml"),
    "no XML": ("roboflow_voc", VOC, "<annotation>", "not-xml"),
    "another XML": ("roboflow_voc", VOC, "<annotations/>", "not-an-annotation"),
    "no size": ("roboflow_voc", VOC, "<annotation/>", "bad-size"),
    "XML without image": ("roboflow_voc", "train/z.xml", own_forms.xml("a.jpg"), "z.xml: no image z.jpg"),
    "an id that climbs": ("cvat_voc", "ImageSets/Main/default.txt", "../a", "is no image id"),
    "an id without XML": ("cvat_voc", "ImageSets/Main/default.txt", "a\nz", "missing-annotation"),
    "columns": ("table", CSV, "a.jpg,1,2,3,4,cat\na.jpg,1,2,cat", r"line 2: 4 columns, the first line has 6"),
    "header": ("table", CSV, "one,two,three\n1,2,3", "no column of the images in one, two, three"),
    "no corners": ("table", CSV, "image,class,x1\na.jpg,cat,1", "no columns of the class and of four corners"),
    "no number": (
        "table",
        CSV,
        "image,x1,y1,x2,y2,class\na.jpg,1,2,x,4,cat",
        "line 2: 1, 2, x, 4 are not four",
    ),
    "CSV that climbs": ("table", CSV, "../a.jpg,1,2,3,4,cat", "'../a.jpg' leads out of the folder"),
    "no image": ("table", CSV, "z.jpg,1,2,3,4,cat", "image 'z.jpg' is in none of"),
    "one image missing": ("table", CSV, "a.jpg,1,2,3,4,cat\nz.jpg,1,2,3,4,cat", "z.jpg does not exist"),
    "tasks": ("label_studio_coco", "result.json", '[{"data": {}, "annotations": []}]', "Label Studio's own JSON"),
    "LabelMe": ("label_studio_coco", "result.json", '{"shapes": []}', "a file of LabelMe"),
    "CreateML": ("label_studio_coco", "result.json", '[{"image": "a", "annotations": []}]', "CreateML"),
    "two forms": ("flat_yolo", "boxes.csv", "a.jpg,1,2,3,4,cat", "more than one form of annotations: YOLO txt .*CSV"),
    "two tables": ("table", "more.csv", "a.jpg,1,2,3,4,cat", "any of .*boxes.csv, .*more.csv may be meant"),
    "broken image": ("table", "a.jpg", "no picture", "a.jpg: cannot be read as an image"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, tmp_path):
    writer, file, content, said = MISTAKES[name]
    path = own_forms.WRITERS[writer](tmp_path)
    place = tmp_path / file
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said) as raised:
        read_place(find_place(path if path.is_dir() or name != "two tables" else path.parent))
    assert "\n" not in str(raised.value)


def test_shares_where_pixels_belong_are_an_error_of_the_check(tmp_path):
    own_forms.table(tmp_path)
    put(tmp_path / CSV, "a.jpg,.1,.1,.4,.5,cat\nb.jpg,.2,.2,.5,.9,dog\n")
    own = read_place(find_place(tmp_path))
    kinds = [fault.kind for fault in check_coco(own.data, own.folder, source="it") if fault.severity == "error"]
    assert "normalised-boxes" in kinds


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "no", "does not exist; give a file of annotations"),
        (lambda root: put(root / "a.zip", "PK"), "is an archive; unpack it"),
        (lambda root: put(root / "a.docx", ""), "no known form of annotations"),
        (lambda root: put(root / "a.xml", ""), "is one XML file; give the folder"),
        (lambda root: own_forms.write_images(root), r"looked for COCO or LVIS JSON .*it holds images alone"),
        (lambda root: put(root / "x/readme.md", "").parent, "it holds readme.md"),
    ],
)
def test_what_has_no_known_form_says_what_was_looked_for(make, said, tmp_path):
    with pytest.raises(DataError, match=said):
        find_place(make(tmp_path))


def test_a_split_is_by_image_and_seed_and_stays_when_images_are_added():
    files = [f"{number}.jpg" for number in range(100)]
    chosen = choose_images(files, 0.1, 3)
    assert len(chosen) == 10 and set(chosen) < set(files)
    assert chosen == choose_images(files[::-1], 0.1, 3) != choose_images(files, 0.1, 4)
    more = choose_images([*files, *(f"new{number}.jpg" for number in range(10))], 0.1, 3)
    assert len(set(chosen) & set(more)) >= 9
    with pytest.raises(DataError, match="leaves none to train on"):
        choose_images(["a.jpg"], 0.5, 0)


def test_the_sides_of_a_split_share_nothing_and_miss_nothing():
    data = own_forms.coco()
    sides = [keep_images(data, {"b.jpg"}, held_out=side) for side in (True, False)]
    assert [[image["file_name"] for image in side["images"]] for side in sides] == [["b.jpg"], ["a.jpg", "c.jpg"]]
    assert np.sum([len(side["annotations"]) for side in sides]) == len(data["annotations"])
    assert sides[0]["annotations"] == [item for item in data["annotations"] if item["image_id"] == 8]


@pytest.mark.parametrize("name", ["cvat_coco", "roboflow_voc", "roboflow_yolo", "roboflow_csv"])
def test_a_set_that_is_divided_is_read_once(name, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(datasets, "read_place", lambda *given: read.append(given) or read_place(*given))
    path = own_forms.WRITERS[name](tmp_path)
    keys = own_data_keys(train=str(path), split=0.34)
    sets = datasets.load_sets(detection.get_config("mini_faster_rcnn_r18.yaml", keys), training=True)
    assert len(read) == 1
    sides = [sets.train, sets.test[0].images]
    assert sorted(Path(file).name for side in sides for file in side.files) == list(OBJECTS)
    for side in sides:
        written = [(CLASSES.index(what), *box) for file in side.files for what, box in OBJECTS[Path(file).name]]
        assert [(label, *box) for label, box in zip(side.labels.tolist(), side.boxes.tolist())] == written


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_flags_of_a_place_lead_to_it(part, tmp_path):
    root = own_forms.WRITERS["roboflow_yolo"](tmp_path)
    place = find_place(root, part, root)
    assert place.flags == f"--{part} {place.source} --{part}-images {root}"


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("name", ["cvat_coco", "roboflow_voc", "roboflow_yolo"])
def test_what_is_converted_is_read_as_the_same_bits(name, form, tmp_path):
    own = read_place(find_place(own_forms.WRITERS[name](tmp_path / "from")))
    for record in own.data["annotations"]:  # halves and thirds of a pixel survive too
        record["bbox"][0] += 0.333333
        record["bbox"][2] -= 0.5
    told = write_parts({"train": own, "val": own} if form != "voc" else {"train": own}, form, tmp_path / "to")
    assert told["objects"] == 4 * (2 if form != "voc" else 1) and not told["left out"]
    first = build_set(own.data, name="it", folder=own.folder)
    second = read(tmp_path / "to")
    assert second.boxes.tobytes() == first.boxes.tobytes()
    assert (second.classes, second.labels.tolist()) == (first.classes, first.labels.tolist())
    assert list(second.files) == [Path(file).name for file in first.files]
    assert has_part(tmp_path / "to", "val") == (form != "voc")
    with pytest.raises(DataError, match="is there already, and is not empty"):
        write_parts({"train": own}, form, tmp_path / "to")


def test_crowds_are_difficult_in_voc_and_left_out_of_yolo(tmp_path):
    own = read_place(find_place(own_forms.cvat_coco(tmp_path / "from")))
    own.data["annotations"][0]["iscrowd"] = 1
    assert write_parts({"train": own}, "yolo", tmp_path / "yolo") == {"images": 3, "objects": 3, "left out": 1}
    assert write_parts({"train": own}, "voc", tmp_path / "voc")["left out"] == 0
    assert read(tmp_path / "voc").crowd.tolist() == [True, False, False, False]


def test_two_images_of_one_name_are_not_written_over_each_other(tmp_path):
    own = read_place(find_place(own_forms.cvat_coco(tmp_path / "from")))
    (own.folder / "a.png").write_bytes((own.folder / "a.jpg").read_bytes())
    own.data["images"][1]["file_name"] = "a.png"
    for form in ("yolo", "voc"):
        with pytest.raises(DataError, match="two images would have the"):
            write_parts({"train": own}, form, tmp_path / "to")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]

"""The checks of COCO-form data: every kind of fault is provoked, and a mended copy has no errors left."""

from __future__ import annotations

import copy
import json
import os
import random
import runpy
import struct
import sys
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path

import cv2
import numpy as np
import pytest

from backbone.errors import DataError
from detection.data import checks

REPOSITORY = Path(__file__).resolve().parents[3]
TOOL = REPOSITORY / "tools" / "check_data.py"
WIDTH, HEIGHT = 64, 48
SHARED_DATA = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))

Change = Callable[[dict], object]


def jpeg(width: int = WIDTH, height: int = HEIGHT, *, seed: int = 0, gray: bool = False) -> bytes:
    shape = (height, width) if gray else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return cv2.imencode(".jpg", cv2.blur(pixels, (5, 5)))[1].tobytes()


def png(dtype: type = np.uint8) -> bytes:
    return cv2.imencode(".png", np.arange(HEIGHT * WIDTH, dtype=dtype).reshape(HEIGHT, WIDTH))[1].tobytes()


def with_exif(content: bytes, orientation: int, order: str = "<") -> bytes:
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    tiff += struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


def as_cmyk(folder: Path) -> bytes:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the CMYK file")
    image.new("CMYK", (WIDTH, HEIGHT), (10, 200, 30, 40)).save(folder / "cmyk.jpg")
    return (folder / "cmyk.jpg").read_bytes()


def annotation(id: int, image_id: int, box: list, category_id: int = 1) -> dict:
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [polygon],
    }


def sound_data() -> dict:
    """Six images, seven annotations, among them a crowd, and three categories, one with two keypoints."""
    boxes = [
        [8, 6, 20, 10],
        [0, 0, WIDTH, HEIGHT],
        [30.5, 20.25, 10.5, 7.75],
        [40, 30, 20, 10],
        [5, 5, 9, 9],
        [1, 2, 3, 4],
    ]
    annotations = [annotation(10 + index, 1 + index, box, 1 + index % 2) for index, box in enumerate(boxes)]
    annotations[1]["keypoints"] = [5, 6, 2, 0, 0, 0]
    for place in (3, 5):
        annotations[place]["keypoints"] = [0] * 6
    crowd = annotation(20, 2, [0, 0, 30, 30], 3)
    crowd |= {
        "iscrowd": 1,
        "area": 900,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 900, HEIGHT * WIDTH - 900]},
    }
    return {
        "info": {},
        "licenses": [],
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(1, 7)],
        "annotations": [*annotations, crowd],
        "categories": [
            {"id": 1, "name": "cat"},
            {"id": 2, "name": "person", "keypoints": ["nose", "tail"]},
            {"id": 3, "name": "crowd of dogs"},
        ],
    }


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `sound_data`; not to be written to."""
    folder = tmp_path_factory.mktemp("images")
    for id in range(1, 7):
        (folder / f"{id}.jpg").write_bytes(jpeg(seed=id))
    return folder


@pytest.fixture
def folder(tmp_path: Path, sound_folder: Path) -> Path:
    """A copy of the files that a test may write to."""
    (tmp_path / "images").mkdir()
    for file in sound_folder.iterdir():
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "images"


def kinds(faults: list[checks.Fault]) -> set[str]:
    return {fault.kind for fault in faults}


def errors(faults: list[checks.Fault]) -> list[checks.Fault]:
    return [fault for fault in faults if fault.severity == "error"]


def image(data: dict, /, **values: object) -> None:
    data["images"][0].update(values)


def first(data: dict, /, **values: object) -> None:
    data["annotations"][0].update(values)


def repeat(data: dict, name: str, /, **values: object) -> None:
    data[name].append({**data[name][0], **values})


def twelve_corner_boxes(data: dict) -> None:
    data["annotations"] = [annotation(1 + i, 1, [30 + i, 20 + i, 50 + i, 36 + i]) for i in range(12)]


CHANGES: list[tuple[str, Change]] = [
    ("missing-list", lambda d: d.pop("categories")),
    ("missing-list", lambda d: d.pop("annotations")),
    ("not-a-list", lambda d: d.update(images={})),
    ("no-images", lambda d: d.update(images=[])),
    ("no-categories", lambda d: d.update(categories=[])),
    ("not-a-record", lambda d: d["annotations"].append([1])),
    ("not-a-record", lambda d: d["images"].append(None)),
    ("missing-image-key", lambda d: d["images"][0].pop("id")),
    ("missing-image-key", lambda d: d["images"][0].pop("file_name")),
    ("missing-image-key", lambda d: d["images"][0].pop("width")),
    ("wrong-image-type", lambda d: image(d, id="one")),
    ("wrong-image-type", lambda d: image(d, width=str(WIDTH))),
    ("wrong-image-type", lambda d: image(d, height=True)),
    ("wrong-image-type", lambda d: image(d, height=48.5)),
    ("wrong-image-type", lambda d: image(d, id=2**70)),
    ("wrong-image-type", lambda d: image(d, file_name=7)),
    ("wrong-image-type", lambda d: image(d, file_name="")),
    ("float-integer", lambda d: image(d, width=float(WIDTH))),
    ("float-integer", lambda d: first(d, image_id=1.0)),
    ("bad-size", lambda d: image(d, width=0)),
    ("bad-size", lambda d: image(d, height=-3)),
    ("duplicate-image-id", lambda d: repeat(d, "images")),
    ("duplicate-image-id", lambda d: image(d, id=2)),
    ("duplicate-file-name", lambda d: repeat(d, "images", id=99)),
    ("duplicate-file-name", lambda d: repeat(d, "images", id=99, file_name="./1.jpg")),
    ("path-outside-folder", lambda d: image(d, file_name="../1.jpg")),
    ("path-outside-folder", lambda d: image(d, file_name="/1.jpg")),
    ("path-outside-folder", lambda d: image(d, file_name="C:\\1.jpg")),
    ("path-outside-folder", lambda d: image(d, file_name="a/../../1.jpg")),
    ("missing-file", lambda d: image(d, file_name="none.jpg")),
    ("missing-file", lambda d: image(d, file_name="train/1.jpg")),
    ("missing-file", lambda d: image(d, file_name="a\0b/1.jpg")),
    ("missing-category-key", lambda d: d["categories"][0].pop("id")),
    ("missing-category-key", lambda d: d["categories"][0].pop("name")),
    ("wrong-category-type", lambda d: d["categories"][0].update(id="cat")),
    ("wrong-category-type", lambda d: d["categories"][0].update(name=3)),
    ("duplicate-category-id", lambda d: repeat(d, "categories", name="cow")),
    ("duplicate-category-name", lambda d: repeat(d, "categories", id=9)),
    ("missing-annotation-key", lambda d: d["annotations"][0].pop("id")),
    ("missing-annotation-key", lambda d: d["annotations"][0].pop("image_id")),
    ("missing-annotation-key", lambda d: d["annotations"][0].pop("category_id")),
    ("missing-annotation-key", lambda d: d["annotations"][0].pop("bbox")),
    ("wrong-annotation-type", lambda d: first(d, image_id="1")),
    ("wrong-annotation-type", lambda d: first(d, category_id=True)),
    ("wrong-annotation-type", lambda d: first(d, id=None)),
    ("wrong-annotation-type", lambda d: first(d, id=1.5)),
    ("duplicate-annotation-id", lambda d: first(d, id=11)),
    ("annotation-id-zero", lambda d: first(d, id=0)),
    ("unknown-image", lambda d: first(d, image_id=77)),
    ("unknown-category", lambda d: first(d, category_id=77)),
    ("malformed-box", lambda d: first(d, bbox=[1, 2, 3])),
    ("malformed-box", lambda d: first(d, bbox=[1, 2, 3, "4"])),
    ("malformed-box", lambda d: first(d, bbox={"x": 1})),
    ("malformed-box", lambda d: first(d, bbox=None)),
    ("malformed-box", lambda d: first(d, bbox=[1, 2, 3, 10**400])),
    ("nan-box", lambda d: first(d, bbox=[1, 2, nan, 4])),
    ("nan-box", lambda d: first(d, bbox=[1, inf, 3, 4])),
    ("negative-box", lambda d: first(d, bbox=[10, 10, -3, 4])),
    ("empty-box", lambda d: first(d, bbox=[10, 10, 3, 0])),
    ("box-outside", lambda d: first(d, bbox=[WIDTH, 0, 5, 5])),
    ("box-outside", lambda d: first(d, bbox=[0, -5, 5, 5])),
    ("box-partly-outside", lambda d: first(d, bbox=[WIDTH - 2, 0, 3.1, 5])),
    ("box-partly-outside", lambda d: first(d, bbox=[0, -1.5, 5, 5])),
    ("xyxy-boxes", twelve_corner_boxes),
    ("missing-area", lambda d: d["annotations"][0].pop("area")),
    ("bad-area", lambda d: first(d, area=0)),
    ("bad-area", lambda d: first(d, area=nan)),
    ("bad-area", lambda d: first(d, area="200")),
    ("area-mismatch", lambda d: first(d, area=20 * 10 * 2)),
    ("area-mismatch", lambda d: first(d, area=20, segmentation=[])),
    ("missing-iscrowd", lambda d: d["annotations"][0].pop("iscrowd")),
    ("bad-iscrowd", lambda d: first(d, iscrowd=2)),
    ("bad-iscrowd", lambda d: first(d, iscrowd="0")),
    ("bad-iscrowd", lambda d: first(d, iscrowd=True)),
    ("crowd-polygons", lambda d: first(d, iscrowd=1)),
    ("missing-segmentation", lambda d: d["annotations"][0].pop("segmentation")),
    ("bad-polygon", lambda d: first(d, segmentation=[[1, 2, 3, 4, 5, 6, 7]])),
    ("bad-polygon", lambda d: first(d, segmentation=[[1, 2, 3, 4, 5, nan]])),
    ("bad-polygon", lambda d: first(d, segmentation=[[1, 2, 3, 4, 5, "6"]])),
    ("bad-polygon", lambda d: first(d, segmentation=[8, 6, 28, 6, 28, 16])),
    ("bad-polygon", lambda d: first(d, segmentation="polygon")),
    ("short-polygon", lambda d: first(d, segmentation=[[1, 2, 3, 4]])),
    ("bad-rle", lambda d: first(d, segmentation={"size": [WIDTH, HEIGHT], "counts": [0, WIDTH * HEIGHT]})),
    ("bad-rle", lambda d: first(d, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, 9]})),
    ("bad-rle", lambda d: first(d, segmentation={"size": [HEIGHT, WIDTH], "counts": [-1, WIDTH * HEIGHT + 1]})),
    ("bad-rle", lambda d: first(d, segmentation={"size": [HEIGHT, WIDTH], "counts": "0 1"})),
    ("bad-rle", lambda d: first(d, segmentation={"size": [HEIGHT, WIDTH], "counts": "05o"})),
    ("bad-rle", lambda d: first(d, segmentation={"counts": [1]})),
    ("bad-keypoints", lambda d: d["annotations"][1].update(keypoints=[1, 2, 2])),
    ("bad-keypoints", lambda d: d["annotations"][1].update(keypoints=[1, 2, 2, nan, 0, 0])),
    ("missing-keypoints", lambda d: d["annotations"][1].pop("keypoints")),
    ("duplicate-object", lambda d: repeat(d, "annotations", id=99)),
    ("no-annotations", lambda d: d.update(annotations=[])),
    ("missing-info", lambda d: d.pop("info")),
    ("missing-licenses", lambda d: d.pop("licenses")),
    ("unannotated-images", lambda d: d["annotations"].pop(0)),
    ("unused-category", lambda d: d["categories"].append({"id": 4, "name": "cow"})),
    ("category-id-gaps", lambda d: d["categories"].append({"id": 9, "name": "cow"})),
    ("category-id-zero", lambda d: d["categories"].append({"id": 0, "name": "cow"})),
]

TEXTS = [
    ("empty-file", b""),
    ("empty-file", b" \n\0\0"),
    ("truncated-json", b'{"images": [{"id": 1'),
    ("truncated-json", b'{"images": [{"id": 1}'),
    ("truncated-json", b'{"images": [{"file_name": "a'),
    ("not-json", b"<html></html>"),
    ("not-json", b'{"images": [1,, 2]}'),
    ("not-json", b"\xff\xfa\x00\x81"),
    ("not-json", b"[" * 200_000),
    ("not-json", b"[" + b"9" * 9_000 + b"]"),
    ("byte-order-mark", b"\xef\xbb\xbf{}"),
    ("nan-literal", b'{"score": NaN}'),
]

BAD_IMAGES: list[tuple[str, Callable[[], bytes]]] = [
    ("empty-image-file", lambda: b""),
    ("not-an-image", lambda: b"<html>404</html>"),
    ("not-an-image", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    ("truncated-image", lambda: jpeg()[:-2]),
    ("truncated-image", lambda: jpeg()[:-200]),
    ("truncated-image", lambda: jpeg()[:300]),
    ("truncated-image", lambda: jpeg()[:-300] + bytes(300)),
    ("truncated-image", lambda: with_exif(jpeg()[:-200], 1)[:-2]),
    ("truncated-image", lambda: png()[:-12]),
    ("broken-image", lambda: flip(png(), len(png()) // 2)),
    ("broken-image", lambda: b"BM" + bytes(100)),
    ("size-mismatch", lambda: jpeg(WIDTH + 1)),
    ("size-mismatch", lambda: jpeg(HEIGHT, WIDTH)),
    ("corrupt-image-data", lambda: stray_bytes(jpeg())),
    ("exif-ignored", lambda: with_exif(jpeg(), 6)),
    ("exif-rotated", lambda: with_exif(jpeg(HEIGHT, WIDTH), 6)),
    ("exif-rotated", lambda: with_exif(jpeg(HEIGHT, WIDTH), 8, order=">")),
    ("exif-rotated", lambda: with_exif(jpeg(), 3)),
    ("grayscale-image", lambda: jpeg(gray=True)),
    ("sixteen-bit-image", lambda: png(np.uint16)),
]
# Kinds with a test of their own.
ELSEWHERE = {"not-a-dict", "missing-folder", "unreadable-file", "cmyk-image"}


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def stray_bytes(content: bytes) -> bytes:
    return content[:-2] + bytes(3) + content[-2:]


def test_sound_data_has_no_fault(sound_folder: Path) -> None:
    data = sound_data()
    assert checks.check_coco(data, sound_folder, source="a.json") == []
    assert checks.check_images(data, checks.inspect_images(data, sound_folder)) == []


@pytest.mark.parametrize(("kind", "change"), CHANGES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(CHANGES)])
def test_change_is_found_and_mended(kind: str, change: Change, sound_folder: Path) -> None:
    data = sound_data()
    change(data)
    before = copy.deepcopy(data)
    faults = checks.check_coco(data, sound_folder, source="a.json")
    fault = next((fault for fault in faults if fault.kind == kind), None)
    assert fault is not None, faults
    assert fault.severity == checks.KINDS[kind].severity
    assert fault.count >= len(fault.examples) >= 1
    assert all(example and "\n" not in example for example in fault.examples)
    assert_mends(data, sound_folder, fault)
    assert repr(data) == repr(before)


def assert_mends(data: dict, folder: Path, fault: checks.Fault) -> None:
    facts = checks.inspect_images(data, folder) if isinstance(data.get("images"), list) else None
    if fault.severity == "error" and not fault.fixable:
        with pytest.raises(DataError):
            checks.mend(data, folder, source="a.json", facts=facts)
        return
    mended = checks.mend(data, folder, source="a.json", facts=facts)
    left = kinds(mended.left)
    assert not errors(mended.left)
    assert (fault.kind in left) == (not fault.fixable)
    again = checks.mend(mended.data, folder, source="b.json", facts=facts)
    assert again.actions == {}


@pytest.mark.parametrize(("kind", "content"), TEXTS)
def test_text_is_found(kind: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    _, faults = checks.read_json(file)
    assert kinds(faults) == {kind}
    assert str(file) in faults[0].examples[0]


@pytest.mark.parametrize(("kind", "make"), BAD_IMAGES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(BAD_IMAGES)])
def test_image_file_is_judged(kind: str, make: Callable[[], bytes], folder: Path, capfd: pytest.CaptureFixture) -> None:
    (folder / "3.jpg").write_bytes(make())
    data = sound_data()
    facts = checks.inspect_images(data, folder)
    faults = checks.check_images(data, facts)
    fault = next((fault for fault in faults if fault.kind == kind), None)
    assert fault is not None, faults
    assert "image 3 '3.jpg'" in fault.examples[0]
    assert not errors([other for other in faults if other is not fault])
    assert not errors(checks.mend(data, folder, source="a.json", facts=facts).left)
    assert capfd.readouterr().err == ""


def test_cmyk_is_noticed(folder: Path) -> None:
    (folder / "3.jpg").write_bytes(as_cmyk(folder))
    data = sound_data()
    assert kinds(checks.check_images(data, checks.inspect_images(data, folder))) == {"cmyk-image"}


def test_unreadable_file_is_named(monkeypatch: pytest.MonkeyPatch, sound_folder: Path) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    faults = checks.check_images(sound_data(), checks.inspect_images(sound_data(), sound_folder))
    assert kinds(faults) == {"unreadable-file"}
    assert faults[0].count == 6
    assert len(faults[0].examples) == 5


@pytest.mark.parametrize("data", [[], None, 3, "text"])
def test_what_is_no_dict_is_said(data: object, sound_folder: Path) -> None:
    assert kinds(checks.check_coco(data, sound_folder, source="a.json")) == {"not-a-dict"}


def test_missing_folder_is_one_fault(tmp_path: Path) -> None:
    faults = checks.check_coco(sound_data(), tmp_path / "none", source="a.json")
    assert kinds(faults) == {"missing-folder"}
    with pytest.raises(DataError, match="no such folder"):
        checks.mend(sound_data(), tmp_path / "none", source="a.json")


def test_every_kind_is_provoked() -> None:
    provoked = {kind for kind, _ in [*CHANGES, *TEXTS, *BAD_IMAGES]} | ELSEWHERE
    assert provoked == set(checks.KINDS)


def test_counts_and_first_examples(sound_folder: Path) -> None:
    data = sound_data()
    for record in data["annotations"]:
        record["bbox"] = [nan, 0, 1, 1]
    (fault,) = errors(checks.check_coco(data, sound_folder, source="a.json"))
    assert (fault.kind, fault.count, len(fault.examples)) == ("nan-box", 7, 5)
    assert fault.examples[0].startswith("annotation 10 of image 1: ")


def test_box_may_stand_out_by_one_pixel(sound_folder: Path) -> None:
    data = sound_data()
    first(data, bbox=[-1, -1, WIDTH + 2, HEIGHT + 2], area=WIDTH * HEIGHT)
    assert checks.check_coco(data, sound_folder, source="a.json") == []


def test_sound_compressed_run_lengths_pass(sound_folder: Path) -> None:
    mask_utils = pytest.importorskip("pycocotools.mask")
    data = sound_data()
    for seed, record in enumerate(data["annotations"]):
        mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.1
        rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        record["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    assert checks.check_coco(data, sound_folder, source="a.json") == []


def test_full_coco_faults_are_no_errors(sound_folder: Path) -> None:
    """train2017 holds two boxes of height 0 with area 0 (annotations 918 and 2206849; cocodataset/cocoapi#355)."""
    data = sound_data()
    first(data, bbox=[29.65, 38.33, 1.03, 0.0], area=0.0, segmentation=[[29.65, 38.33, 29.65, 38.33, 30.7, 38.33]])
    faults = checks.check_coco(data, sound_folder, source="a.json")
    assert kinds(faults) == {"empty-box", "bad-area"}
    assert not errors(faults)


def test_raise_on_errors_is_one_line(sound_folder: Path) -> None:
    data = sound_data()
    checks.raise_on_errors(checks.check_coco(data, sound_folder, source="a.json"), "a.json")
    data["info"] = None
    first(data, bbox=[nan, 0, 1, 1])
    data["annotations"][2]["image_id"] = 77
    faults = checks.check_coco(data, sound_folder, source="a.json")
    with pytest.raises(DataError) as caught:
        checks.raise_on_errors(faults, "a.json", images=sound_folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("a.json: unknown-image: annotation 12 of image 77")
    assert "1 more error" in message
    assert f"run tools/check_data.py --json a.json --images {sound_folder} for the whole report" in message


def test_joined_images_keep_their_annotations(sound_folder: Path) -> None:
    data = sound_data()
    repeat(data, "images", id=99)
    first(data, image_id=99)
    mended = checks.mend(data, sound_folder, source="a.json").data
    assert len(mended["images"]) == 6
    assert [record["image_id"] for record in mended["annotations"]] == [1, 2, 3, 4, 5, 6, 2]


def test_references_follow_ids_that_become_integers(sound_folder: Path) -> None:
    data = sound_data()
    image(data, id="first")
    first(data, image_id="first", category_id="2")
    mended = checks.mend(data, sound_folder, source="a.json").data
    assert mended["images"][0]["id"] == mended["annotations"][0]["image_id"] == 7
    assert mended["annotations"][0]["category_id"] == 2


def test_like_named_file_is_taken(folder: Path) -> None:
    (folder / "1.jpg").rename(folder / "1.JPG")
    data = sound_data()
    (fault,) = checks.check_coco(data, folder, source="a.json")
    assert "which has '1.JPG'" in fault.examples[0]
    mended = checks.mend(data, folder, source="a.json")
    assert mended.data["images"][0]["file_name"] == "1.JPG"
    assert mended.left == []


def test_corner_boxes_become_xywh(sound_folder: Path) -> None:
    data = sound_data()
    twelve_corner_boxes(data)
    mended = checks.mend(data, sound_folder, source="a.json").data
    assert mended["annotations"][0]["bbox"] == [30, 20, 20, 16]


def test_size_comes_from_the_rotated_file(folder: Path) -> None:
    (folder / "1.jpg").write_bytes(with_exif(jpeg(100, 80), 6))
    data = sound_data()
    mended = checks.mend(data, folder, source="a.json", facts=checks.inspect_images(data, folder)).data
    assert (mended["images"][0]["width"], mended["images"][0]["height"]) == (80, 100)


JUNK = [None, True, False, "", "x", "7", 0, 1, 2, -1, 3.0, 2.5, nan, inf, -inf, 2**70, 10**400, [], {}, [1, 2], "../x"]
JUNK += [[nan, 1, 2, 3], [1, 2, 3, 4], ["1", "2", "3", "4"], [5, 5, -2, 3], [-9, -9, 12, 99], [1e308, 0, 1e308, 1]]
JUNK += [[[1, 2, 3, 4, 5, 6]], [[1, 2, 3]], {"size": [HEIGHT, WIDTH], "counts": [1, 2]}, {"size": None, "counts": "0"}]


def corrupt(data: dict, chance: random.Random) -> None:
    """Damage a few random places, and leave the last image and category alone so that something can be left."""
    for _ in range(chance.randint(1, 12)):
        name = chance.choice(["images", "annotations", "annotations", "annotations", "categories"])
        place = chance.randrange(len(data[name]) - (name != "annotations"))
        record = data[name][place]
        action = chance.choice(["set", "set", "set", "delete", "repeat", "replace", "header"])
        if not isinstance(record, dict) or action == "replace":
            data[name][place] = chance.choice(JUNK)
        elif action == "set":
            record[chance.choice(sorted(record) or ["id"])] = copy.deepcopy(chance.choice(JUNK))
        elif action == "delete" and record:
            del record[chance.choice(sorted(record))]
        elif action == "repeat":
            data[name].insert(chance.randrange(len(data[name])), copy.deepcopy(record))
        elif action == "header":
            data[chance.choice(["info", "licenses", "extra"])] = chance.choice(JUNK)


@pytest.mark.parametrize("seed", range(6))
def test_mended_copy_of_random_damage_has_no_errors(seed: int, folder: Path, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for id in chance.sample(range(1, 6), 2):
        (folder / f"{id}.jpg").write_bytes(chance.choice(BAD_IMAGES)[1]())
    found = 0
    for _ in range(50):
        data = sound_data()
        corrupt(data, chance)
        facts = checks.inspect_images(data, folder) if chance.random() < 0.5 else None
        found += bool(errors(checks.faults_of(data, folder, "a.json", facts)))
        mended = checks.mend(data, folder, source="a.json", facts=facts)
        checks.write_json(mended.data, tmp_path / "out.json")
        written, faults = checks.read_json(tmp_path / "out.json")
        left = faults + checks.faults_of(written, folder, "out.json", facts)
        assert not errors(left), (data, errors(left))
        assert {record["id"] for record in written["images"]} <= set(range(-1, 30))
    assert found > 25


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("task", ["instances", "person_keypoints"])
def test_real_coco_has_no_errors(task: str, split: str) -> None:
    root = SHARED_DATA / "coco"
    file = root / "annotations" / f"{task}_{split}2017.json"
    if not file.exists():
        pytest.skip(f"{file} is not there; SHARED_DATA names the folder of shared data")
    data, faults = checks.read_json(file)
    folder = root / f"{split}2017"
    faults += checks.faults_of(data, folder, str(file), checks.inspect_images(data, folder))
    assert {fault.severity for fault in faults} <= {"notice"}, faults


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Iterator[Callable]:
    """Runs the command line; returns its status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(TOOL), run_name="__main__")
        return exit.value.code, *capfd.readouterr()

    return call


def damaged(tmp_path: Path, folder: Path) -> Path:
    data = sound_data()
    first(data, bbox=[nan, 0, 1, 1])
    data["annotations"][1].pop("iscrowd")
    (folder / "3.jpg").write_bytes(jpeg()[:-20])
    (folder / "4.jpg").unlink()
    (tmp_path / "a.json").write_text(json.dumps(data))
    return tmp_path / "a.json"


def test_tool_reports_everything_at_once(tool: Callable, tmp_path: Path, folder: Path) -> None:
    file = damaged(tmp_path, folder)
    status, out, err = tool("--json", file, "--images", folder, "--report", tmp_path / "report.json")
    assert (status, err) == (2, "")
    for kind in ("nan-box", "nan-literal", "missing-file", "truncated-image", "missing-iscrowd"):
        assert f" {kind}: 1" in out
    assert "6 images, 7 annotations, 3 categories" in out.splitlines()[0]
    assert out.splitlines()[-1].startswith("verdict: NOT fit for use: 3 errors")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fit"] is False
    assert report["counts"] == {"images": 6, "annotations": 7, "categories": 3}
    assert report["faults"][0]["examples"]


def test_tool_without_decoding(tool: Callable, tmp_path: Path, folder: Path) -> None:
    status, out, _ = tool("--json", damaged(tmp_path, folder), "--images", folder, "--quick")
    assert status == 2
    assert "truncated-image" not in out


def test_tool_mends(tool: Callable, tmp_path: Path, folder: Path) -> None:
    file = damaged(tmp_path, folder)
    before = file.read_bytes()
    status, out, err = tool("--json", file, "--images", folder, "--fix", tmp_path / "out.json")
    assert (status, err) == (0, "")
    assert "images dropped: truncated-image: 1" in out
    assert out.splitlines()[-1].startswith("verdict on the mended copy: fit for use: 0 errors")
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "images", "out.json"]
    assert tool("--json", tmp_path / "out.json", "--images", folder)[0] == 0


def test_tool_never_writes_over_the_input(tool: Callable, tmp_path: Path, folder: Path) -> None:
    file = damaged(tmp_path, folder)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    for flag in ("--fix", "--report"):
        for same in (file, link, tmp_path / "images" / ".." / "a.json"):
            status, _, err = tool("--json", file, "--images", folder, flag, same)
            assert status == 2
            assert "this is the input" in err
            assert err.count("\n") == 1


def test_tool_says_what_cannot_be_mended(tool: Callable, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [')
    status, out, err = tool("--json", tmp_path / "a.json", "--images", folder, "--fix", tmp_path / "out.json")
    assert status == 2
    assert "error truncated-json: 1" in out
    assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--json", "a.json"),
        ("--data-root", "x"),
        ("--json", "a", "--images", "b", "--dataset", "c"),
        ("--jsn", "a"),
    ],
)
def test_tool_refuses_wrong_usage(tool: Callable, arguments: tuple) -> None:
    status, _, err = tool(*arguments)
    assert status == 2
    assert err.count("\n") == 1


def test_tool_finds_a_known_set(tool: Callable) -> None:
    if not (SHARED_DATA / "coco").exists():
        pytest.skip(f"{SHARED_DATA / 'coco'} is not there; SHARED_DATA names the folder of shared data")
    status, out, _ = tool("--data-root", SHARED_DATA, "--dataset", "coco_2017_val")
    assert status == 0
    assert "50 images, 382 annotations, 80 categories" in out

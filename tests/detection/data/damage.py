"""Sound COCO-form data to damage, and what the checks of it are asked."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from math import inf, nan
from pathlib import Path

import cv2
import numpy as np

from detection.data import checks

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED_DATA = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
WIDTH, HEIGHT = 64, 48


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


def as_corners(data: dict) -> None:
    for record in data["annotations"]:
        x, y, w, h = record["bbox"]
        record["bbox"] = [x, y, x + w, y + h]


def as_shares(data: dict) -> None:
    for record in data["annotations"]:
        record["bbox"] = [value / side for value, side in zip(record["bbox"], (WIDTH, HEIGHT) * 2)]


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def stray_bytes(content: bytes) -> bytes:
    return content[:-2] + bytes(3) + content[-2:]


Change = Callable[[dict], object]

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
    ("xyxy-boxes", lambda d: d.update(annotations=d["annotations"][:6]) or as_corners(d)),
    ("normalised-boxes", as_shares),
    ("normalised-boxes", lambda d: d.update(annotations=[annotation(1, 1, [0.25, 0.5, 0.5, 0.25])])),
    ("normalised-boxes", lambda d: (as_corners(d), as_shares(d))),
    ("missing-area", lambda d: d["annotations"][0].pop("area")),
    ("bad-area", lambda d: first(d, area=0)),
    ("malformed-area", lambda d: first(d, area=nan)),
    ("malformed-area", lambda d: first(d, area="200")),
    ("missing-area", lambda d: first(d, area=None)),
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
    ("bad-rle", lambda d: first(d, segmentation={"size": [10**10, 10**10], "counts": "04"})),
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
    ("truncated-image", lambda: jpeg()[:-3]),
    ("truncated-image", lambda: jpeg()[:-200]),
    ("truncated-image", lambda: jpeg()[:300]),
    ("truncated-image", lambda: jpeg()[:-300] + bytes(300)),
    ("truncated-image", lambda: with_exif(jpeg()[:-200], 1)[:-3]),
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
    ("dark-sixteen-bit-image", lambda: png(np.uint16)),
]

"""One small data set, written in the forms that tools export, each by a plain loop of its own."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 96, 72
CLASSES = ["cat", "dog"]
# File -> [(class, XYXY edges in pixels)]. The last image shows nothing.
OBJECTS = {
    "a.jpg": [("cat", (10, 8, 40, 32)), ("dog", (50, 30, 86, 62))],
    "b.jpg": [("dog", (0, 0, 7, 71)), ("dog", (33, 11, 96, 72))],
    "c.jpg": [],
}


def write_images(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(OBJECTS):
        cv2.imwrite(
            str(folder / name), np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        )
    return folder


def coco() -> dict:
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(OBJECTS, 7)]
    rows = [(i, *item) for i, name in enumerate(OBJECTS, 7) for item in OBJECTS[name]]
    return {
        "info": {},
        "licenses": [],
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 3)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": 3 + CLASSES.index(name),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            for number, (image, name, (x0, y0, x1, y1)) in enumerate(rows, 1)
        ],
    }


def put(path: Path, text: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def roboflow_coco(root: Path) -> Path:
    """Images beside _annotations.coco.json; the project's name is the first category."""
    write_images(root / "train")
    data = coco()
    data["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}] + [
        {**category, "supercategory": "pets"} for category in data["categories"]
    ]
    put(root / "train/_annotations.coco.json", data)
    put(root / "README.roboflow.txt", "pets")
    return root


def cvat_coco(root: Path) -> Path:
    write_images(root / "images/default")
    put(root / "annotations/instances_default.json", coco())
    return root


def label_studio_coco(root: Path) -> Path:
    write_images(root / "images")
    data = coco()
    for image in data["images"]:
        image["file_name"] = f"images\\{image['file_name']}"
    put(root / "result.json", data)
    return root


def lvis(root: Path) -> Path:
    write_images(root / "train2017")
    data = coco()
    for image in data["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
        image["not_exhaustive_category_ids"] = []
    return put(root / "annotations/lvis_v1_train.json", data)


def xml(name: str, first: int = 1) -> str:
    objects = ""
    for what, (x0, y0, x1, y1) in OBJECTS[name]:
        box = f"<xmin>{x0 + first}</xmin><ymin>{y0 + first}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        objects += f"<object><name>{what}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def roboflow_voc(root: Path, first: int = 1) -> Path:
    write_images(root / "train")
    for name in OBJECTS:
        put(root / "train" / f"{Path(name).stem}.xml", xml(name, first))
    return root


def voc_from_zero(root: Path) -> Path:
    return roboflow_voc(root, first=0)


def cvat_voc(root: Path) -> Path:
    write_images(root / "JPEGImages")
    for name in OBJECTS:
        put(root / "Annotations" / f"{Path(name).stem}.xml", xml(name))
    put(root / "ImageSets/Main/default.txt", "a\nb\nc\n")
    put(root / "labelmap.txt", "# label:color_rgb:parts:actions\ncat:::\n")
    return root


def label(name: str) -> str:
    lines = []
    for what, (x0, y0, x1, y1) in OBJECTS[name]:
        box = ((x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT)
        lines.append(" ".join([str(CLASSES.index(what)), *(f"{value:.12f}" for value in box)]))
    return "\n".join(lines)


def roboflow_yolo(root: Path) -> Path:
    """data.yaml says ../train/images and means train/images; an image without objects has no label file here."""
    write_images(root / "train/images")
    for name in ("a.jpg", "b.jpg"):
        put(root / "train/labels" / f"{Path(name).stem}.txt", label(name))
    put(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")
    return root


def ultralytics(root: Path) -> Path:
    write_images(root / "images/train")
    for name in OBJECTS:
        put(root / "labels/train" / f"{Path(name).stem}.txt", label(name))
    put(root / "pets.yaml", f"path: {root}\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    return root / "pets.yaml"


def label_studio_yolo(root: Path) -> Path:
    write_images(root / "images")
    for name in OBJECTS:
        put(root / "labels" / f"{Path(name).stem}.txt", label(name))
    put(root / "classes.txt", "cat\ndog\n")
    put(root / "notes.json", {"categories": []})
    return root


def cvat_yolo(root: Path) -> Path:
    write_images(root / "obj_train_data")
    for name in OBJECTS:
        put(root / "obj_train_data" / f"{Path(name).stem}.txt", label(name))
    put(root / "obj.names", "cat\ndog\n")
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    put(root / "train.txt", "".join(f"data/obj_train_data/{name}\n" for name in OBJECTS))
    return root


def flat_yolo(root: Path) -> Path:
    write_images(root)
    for name in OBJECTS:
        put(root / f"{Path(name).stem}.txt", label(name))
    put(root / "classes.txt", "cat\ndog\n")
    return root


def table(root: Path) -> Path:
    write_images(root)
    rows = [f"{name},{x0},{y0},{x1},{y1},{what}" for name in OBJECTS for what, (x0, y0, x1, y1) in OBJECTS[name]]
    return put(root / "boxes.csv", "\n".join([*rows, "c.jpg,,,,,"]) + "\n")


def roboflow_csv(root: Path) -> Path:
    write_images(root / "train")
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name in OBJECTS:
        rows += [f"{name},{WIDTH},{HEIGHT},{what},{','.join(map(str, box))}" for what, box in OBJECTS[name]]
    put(root / "train/_annotations.csv", "\r\n".join([*rows, f"c.jpg,{WIDTH},{HEIGHT},,,,,"]))
    return root


def table_of_sides(root: Path) -> Path:
    write_images(root / "images")
    rows = ["label_name;bbox_x;bbox_y;bbox_width;bbox_height;image_name"]
    for name in OBJECTS:
        rows += [f"{what};{x0};{y0};{x1 - x0};{y1 - y0};{name}" for what, (x0, y0, x1, y1) in OBJECTS[name]]
    put(root / "labels.csv", "\n".join([*rows, ";;;;;c.jpg"]))
    return root


WRITERS = {
    writer.__name__: writer
    for writer in (
        *(roboflow_coco, cvat_coco, label_studio_coco, lvis, roboflow_voc, voc_from_zero, cvat_voc),
        *(roboflow_yolo, ultralytics, label_studio_yolo, cvat_yolo, flat_yolo, table, roboflow_csv, table_of_sides),
    )
}

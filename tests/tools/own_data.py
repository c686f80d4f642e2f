"""Small data sets in COCO form, as a user brings them: images with two kinds of objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 96, 72
BOXES = ([10, 8, 30, 24], [50, 30, 36, 32])
COLOURS = ((40, 60, 220), (200, 120, 30))


def picture(seed: int) -> np.ndarray:
    """A noisy (H, W, 3) BGR image with one rectangle of each class."""
    image = np.random.default_rng(seed).integers(90, 160, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for (x, y, w, h), colour in zip(BOXES, COLOURS):
        image[y : y + h, x : x + w] = colour
    return image


def write_set(folder: Path, *, images: int = 4, ids: tuple[int, int] = (1, 2), change: Callable | None = None) -> Path:
    """Write `images` images and a.json into `folder`; `change(data)` may alter the data first. Return the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    data: dict = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": []}
    data["categories"] = [{"id": id_, "name": name} for id_, name in zip(ids, ("cat", "dog"))]
    for number in range(1, images + 1):
        name = f"{number:03d}.jpg"
        cv2.imwrite(str(folder / name), picture(number))
        data["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for place, (box, category) in enumerate(zip(BOXES, ids)):
            x, y, w, h = box
            data["annotations"].append(
                {
                    "id": 2 * number + place,
                    "image_id": number,
                    "category_id": category,
                    "bbox": list(box),
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    if change is not None:
        change(data)
    path = folder / "a.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def flags(path: Path, split: str = "train") -> list[str]:
    """The flags that name the set of `write_set`."""
    return [f"--{split}-json", str(path), f"--{split}-images", str(path.parent)]

"""A made-up data set of the size of COCO train2017: 118,287 images and 860,001 polygons, as JSON without image files.

Example:
    python -m benchmarks.coco_scale /tmp/coco_scale
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

IMAGES, OBJECTS, CLASSES = 118_287, 860_001, 80
MEAN_POINTS = 22  # of a polygon; so the file has COCO's 450 MB
SIDES = (480, 640)
CHUNK = 10_000  # records that are written together


def write_set(
    folder: Path, *, images: int = IMAGES, objects: int = OBJECTS, name: str = "train2017", seed: int = 0
) -> Path:
    """Write `folder`/annotations/instances_<name>.json and the empty image folder; return the JSON file."""
    random = np.random.default_rng(seed)
    path = folder / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / name).mkdir(exist_ok=True)
    owners = np.sort(random.integers(0, images, objects))
    random.shuffle(owners[: objects // 2])  # COCO's annotations are not in the order of its images
    categories = [{"id": 1 + label, "name": f"class {label}", "supercategory": "thing"} for label in range(CLASSES)]
    with path.open("wb") as file:
        file.write(b'{"info": {"year": 2017}, "licenses": [], "categories": ' + orjson.dumps(categories))
        _write_list(file, "images", ([_image(index) for index in part] for part in _parts(images)))
        _write_list(file, "annotations", (_annotations(part, owners[part], random) for part in _parts(objects)))
        file.write(b"}")
    return path


def _write_list(file: Any, key: str, chunks: Iterator[list[dict[str, Any]]]) -> None:
    separator = f', "{key}": ['.encode()
    for records in chunks:
        file.write(separator + orjson.dumps(records)[1:-1])
        separator = b","
    file.write(b"]")


def _parts(number: int) -> Iterator[range]:
    return (range(start, min(start + CHUNK, number)) for start in range(0, number, CHUNK))


def _image(index: int) -> dict[str, Any]:
    height, width = SIDES if index % 4 else SIDES[::-1]
    return {"id": index + 1, "file_name": f"{index + 1:012}.jpg", "height": height, "width": width, "license": 1}


def _annotations(indices: range, owners: np.ndarray, random: np.random.Generator) -> list[dict[str, Any]]:
    corners, extents = random.random((len(indices), 2)) * 300, 8 + random.random((len(indices), 2)) * 150
    points = np.maximum(3, random.poisson(MEAN_POINTS, len(indices)))
    classes = random.integers(1, CLASSES + 1, len(indices))
    records = []
    for row, index in enumerate(indices):
        angles = np.linspace(0, 2 * np.pi, points[row], endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2 + 0.5
        polygon = (corners[row] + circle * extents[row]).round(2)
        low, extent = polygon.min(axis=0), np.ptp(polygon, axis=0)
        records.append(
            {
                "id": index + 1,
                "image_id": int(owners[row]) + 1,
                "category_id": int(classes[row]),
                "segmentation": [polygon.reshape(-1).tolist()],
                "area": float(extent.prod() * 0.78),
                "bbox": [*low.tolist(), *extent.tolist()],
                "iscrowd": 0,
            }
        )
    return records


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    arguments = parser.parse_args()
    write_set(arguments.folder, images=arguments.images, objects=arguments.objects)


if __name__ == "__main__":
    main()

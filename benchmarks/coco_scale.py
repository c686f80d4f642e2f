"""A made-up data set of the size of COCO train2017: 118,287 images and 860,001 polygons, as JSON without image files.

With --measure, Mask R-CNN trains on it in so many processes with four loaders each, on four image files that all names
are links to. The main memory that each process has for itself, and its CPU time up to the first step, are written.
With --targets, so many training targets with masks are made, no image is decoded, and the CPU time is written.

Example:
    python -m benchmarks.coco_scale /tmp/coco_scale
    python -m benchmarks.coco_scale /tmp/coco_scale --measure 2
    python -m benchmarks.coco_scale /tmp/coco_scale --targets 60000
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import orjson

if TYPE_CHECKING:
    from detection.data.sets import DetectionSet

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


def link_images(folder: Path, *, name: str = "train2017", images: int = IMAGES) -> None:
    """Make every image file a hard link to one of four: a listing must ask for each symbolic link what it is."""
    for index in range(4):
        image = _image(index)
        cv2.imwrite(str(folder / f"{index}.jpg"), np.full((image["height"], image["width"], 3), 127, np.uint8))
    for index in range(images):
        path = folder / name / _image(index)["file_name"]
        if not path.exists():
            path.hardlink_to(folder / f"{index % 4}.jpg")


def measure(folder: Path, processes: int, *, workers: int = 4, steps: int = 6) -> list[str]:
    """Train on the set, and return a line a process: its private and resident memory, its CPU time at the first step.

    A second training counts, which finds the set in the cache.
    """
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)  # its metrics would be taken for the new run's
    keys = {
        "SOLVER.MAX_ITER": steps,
        "SOLVER.IMS_PER_BATCH": processes,
        "SOLVER.LOG_PERIOD": 1,
        "DATALOADER.NUM_WORKERS": workers,
        "DATASETS.TEST": "()",
        "INPUT.MIN_SIZE_TRAIN": "(128,)",
    }
    tool = [sys.executable, str(Path(__file__).parents[1] / "tools" / "train_net.py"), "--device", "cpu"]
    data = ["--train-json", str(folder / "annotations" / "instances_train2017.json")]
    data += ["--train-images", str(folder / "train2017"), "--data-cache", str(folder / "cache")]
    flags = ["--config", "coco_mask_rcnn_r50_fpn.yaml", "--num-processes", str(processes), "--output-dir", str(run)]
    pairs = [str(part) for pair in keys.items() for part in pair]
    process = subprocess.Popen([*tool, *data, *flags, *pairs], stdout=subprocess.DEVNULL)
    ranks: dict[int, float] = {}
    lines: list[str] = []
    try:
        while process.poll() is None and not lines:
            done = (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0
            if done and not ranks:
                ranks = {pid: _cpu_seconds(pid) for pid in (_children(process.pid) if processes > 1 else [process.pid])}
            if done >= steps - 2:
                for pid, seconds in ranks.items():
                    for child in (pid, *_children(pid)):
                        who = f"process {pid}, {seconds:.1f} s of CPU" if child == pid else "    loader"
                        lines.append(f"{who}: {_private_and_resident(child)}")
            time.sleep(0.05)
        return lines
    finally:
        process.kill()
        process.wait()


def target_seconds(folder: Path, number: int) -> float:
    """Return the CPU seconds of training targets with masks of the first images, as one loader makes them."""
    import torch

    from detection.data.cache import Wanted, load_cached
    from detection.data.mapper import Mapper, Resize
    from detection.data.sets import build_set

    path, images = folder / "annotations" / "instances_train2017.json", folder / "train2017"

    def build() -> DetectionSet:
        return build_set(orjson.loads(path.read_bytes()), name=images.name, folder=images, masks=True)

    found = load_cached(Wanted([path], [images], "targets"), str(folder / "cache"), build)
    torch.set_num_threads(1)
    mapper = Mapper(found, resize=Resize((640, 672, 704, 736, 768, 800), 1333), channel_order="BGR")
    random = np.random.default_rng(0)
    before = time.process_time()
    for index in range(number):
        mapper.targets(index, mapper.view(index, random))
    return time.process_time() - before


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _private_and_resident(pid: int) -> str:
    rows = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    sizes = {row[0]: int(row[1]) / 1024 for row in rows}
    return f"{sizes['Private_Clean:'] + sizes['Private_Dirty:']:.0f} MiB private, {sizes['Rss:']:.0f} MiB resident"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--measure", type=int, metavar="N", help="train in N processes on a set that is there")
    parser.add_argument("--targets", type=int, metavar="N", help="make N training targets of a set that is there")
    arguments = parser.parse_args()
    if arguments.targets:
        link_images(arguments.folder)
        sys.stdout.write(f"{target_seconds(arguments.folder, arguments.targets):.1f} s of CPU\n")
        return
    if arguments.measure:
        link_images(arguments.folder)
        sys.stdout.write("\n".join(measure(arguments.folder, arguments.measure)) + "\n")
        return
    write_set(arguments.folder, images=arguments.images, objects=arguments.objects)


if __name__ == "__main__":
    main()

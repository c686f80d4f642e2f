"""Reading, resizing and flipping training samples of COCO, against detectron2's DatasetMapper."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from backbone.common.errors import DataError
from backbone.common.images import read_image
from backbone.engine.timing import alternate
from detection.data.catalog import locate
from detection.data.mapper import Mapper, Resize
from detection.data.samples import TrainingSamples
from detection.data.sets import DetectionSet, build_set
from detection.data.view import View, resize_and_flip

from .report import Section

SET = "coco_2017_train"
MOST = 100  # images; their decoding times vary more than the rounds do
SIZES = ((800, 1333), (600, 1000))  # shorter and longer side: detectron2's and the paper's
PEER, OURS = "detectron2", "ours"


def read_records(data_root: Path | None) -> tuple[dict[str, Any], Path]:
    """Return the COCO dict of the first MOST training images that have objects, and their folder.

    Raises:
        DataError: the set is not there, or none of its image files is.
    """
    source = locate(SET, data_root)
    data = orjson.loads(source.json_file.read_bytes())
    annotated = {annotation["image_id"] for annotation in data["annotations"]}
    there = (
        image
        for image in data["images"]
        if image["id"] in annotated and (source.image_folder / image["file_name"]).is_file()
    )
    images = list(islice(there, MOST))
    if not images:
        raise DataError(f"{source.image_folder}: holds none of the images of {source.json_file.name}")
    chosen = {image["id"] for image in images}
    annotations = [annotation for annotation in data["annotations"] if annotation["image_id"] in chosen]
    return {**data, "images": images, "annotations": annotations}, source.image_folder


def detectron2_records(data: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return the images as detectron2's `load_coco_json` does."""
    labels = {id_: label for label, id_ in enumerate(sorted(category["id"] for category in data["categories"]))}
    annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for item in data["annotations"]:
        changed = {"category_id": labels[item["category_id"]], "bbox_mode": BoxMode.XYWH_ABS}
        annotations[item["image_id"]].append({**item, **changed})
    return [
        {
            "file_name": str(folder / image["file_name"]),
            "image_id": image["id"],
            "width": image["width"],
            "height": image["height"],
            "annotations": annotations[image["id"]],
        }
        for image in data["images"]
    ]


def detectron2_mapper(size: tuple[int, int], *, masks: bool, flip: bool = True) -> DatasetMapper:
    """Return detectron2's own training mapper: RGB, one size, flipped at random or never."""
    augmentations: list[T.Augmentation] = [T.ResizeShortestEdge([size[0]], size[1], "choice")]
    if flip:
        augmentations.append(T.RandomFlip())
    return DatasetMapper(is_train=True, augmentations=augmentations, image_format="RGB", use_instance_mask=masks)


def our_mapper(images: DetectionSet, size: tuple[int, int], *, flip: bool = True) -> Mapper:
    """Return ours, with the same settings."""
    resize, axis = Resize((size[0],), size[1]), "horizontal" if flip else "none"
    return Mapper(images, resize=resize, channel_order="RGB", flip=axis)


def apart(images: DetectionSet, records: list[dict[str, Any]], size: tuple[int, int]) -> tuple[float, int]:
    """Return how far the pixels of both lie apart, not flipped: the mean and the largest difference, in levels of 255.

    JPEG decoders may round differently, so this counts decoding and resizing.
    """
    peer, ours = detectron2_mapper(size, masks=False, flip=False), our_mapper(images, size, flip=False)
    means, largest = [], 0
    for index, record in enumerate(records):
        difference = (ours(index)["image"].int() - peer(record)["image"].int()).abs()
        means.append(difference.float().mean().item())
        largest = max(largest, int(difference.max()))
    return float(np.mean(means)), largest


def profile(images: DetectionSet, size: tuple[int, int], *, rounds: int) -> dict[str, float]:
    """Return the milliseconds an image that the parts of our mapper take, every image flipped."""
    resize = Resize((size[0],), size[1])
    indices = range(len(images))
    targets = [resize.target(*images.size(index), size[0]) for index in indices]
    decoded = [read_image(images.path(index), size=images.size(index)) for index in indices]
    mapper = our_mapper(images, size)
    parts = {
        "read and decode": lambda i: read_image(images.path(i), size=images.size(i)),
        "resize and flip": lambda i: resize_and_flip(decoded[i], *targets[i], "horizontal"),
        "annotations": lambda i: mapper.targets(i, View.of(images.size(i), targets[i], "horizontal")),
    }
    timings = alternate({name: _over(indices, part) for name, part in parts.items()}, rounds=rounds)
    return {name: 1000 * timing.median / len(images) for name, timing in timings.items()}


def _over(items: Any, call: Callable[[Any], object]) -> Callable[[], None]:
    def run() -> None:
        for item in items:
            call(item)

    return run


@contextmanager
def one_thread() -> Iterator[None]:
    """Give OpenCV and torch one thread, as the loader's processes do."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def measure(data_root: Path | None, *, rounds: int) -> Section:
    """Time the training samples of COCO images through both mappers, in this process, on one thread.

    Raises:
        DataError: see `read_records`.
    """
    data, folder = read_records(data_root)
    records = detectron2_records(data, folder)
    rows, figures, notes = [], {}, []
    with one_thread(), warnings.catch_warnings():
        # detectron2 hands an array of Pillow's to torch.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for size in SIZES:
            for masks in (False, True):
                images = build_set(data, name=SET, folder=folder, masks=masks)
                name = f"{size[0]}/{size[1]}, " + ("boxes and polygons" if masks else "boxes")
                rows += _compare(name, images, records, size, masks=masks, rounds=rounds, figures=figures)
            mean, largest = apart(images, records, size)
            parts = profile(images, size, rounds=rounds)
            figures[f"{size[0]}/{size[1]}"] = {"levels_apart": mean, "most_levels_apart": largest, "profile": parts}
            notes.append(
                f"{size[0]}/{size[1]}: pixels are {mean:.4f} levels apart in the mean, {largest} at most. Ours: "
                + ", ".join(f"{part} {ms:.2f} ms" for part, ms in parts.items())
                + "."
            )
    return Section(
        name="loader",
        title="Training samples of COCO",
        method=(
            f"{len(records)} images of COCO train2017 from the file cache, resized to "
            "shorter/longer side, flipped at random, as tensors with their targets; one process, one thread, in turn, "
            f"median of {rounds} rounds."
        ),
        header=["sizes and targets", "mapper", "ms an image", "images/s", "times detectron2", "slowest/fastest"],
        rows=rows,
        notes=notes,
        figures=figures,
    )


def _compare(
    name: str,
    images: DetectionSet,
    records: list[dict[str, Any]],
    size: tuple[int, int],
    *,
    masks: bool,
    rounds: int,
    figures: dict[str, Any],
) -> list[list[object]]:
    samples = TrainingSamples(our_mapper(images, size), seed=0)
    ways = {
        PEER: _over(records, detectron2_mapper(size, masks=masks)),
        OURS: _over([(index, index) for index in range(len(images))], samples.__getitem__),
    }
    timings = alternate(ways, rounds=rounds)
    milliseconds = {label: 1000 * timing.median / len(images) for label, timing in timings.items()}
    figures[name] = {label: {"ms": ms} for label, ms in milliseconds.items()}
    figures[name]["times_detectron2"] = milliseconds[PEER] / milliseconds[OURS]
    return [
        [name, label, ms, round(1000 / ms), milliseconds[PEER] / ms, timings[label].spread]
        for label, ms in milliseconds.items()
    ]

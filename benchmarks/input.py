"""Reading, decoding, augmenting and batching training images, against torchvision's reference pipeline on Pillow."""

from __future__ import annotations

import random as python_random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.transforms import functional

from backbone.classification.data.decode import (
    CropSpec,
    align,
    choose_reduction,
    draw_box,
    resize,
    stored_box,
    training_crop,
)
from backbone.classification.data.jpeg import decode_region, read_frame
from backbone.common.errors import DataError
from backbone.common.images.headers import has_image_magic, read_header
from backbone.engine.timing import Timing, alternate

from .report import Section

BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPES = {"shorter_side": "shorter side in [256, 480] and crop (the paper)", "area": "random resized crop"}
STAGES = ("read", "header and draw", "decode", "resize", "the rest of the crop", "batch")


def find_images(folder: Path) -> list[Path]:
    """Return the image files below a folder, in order.

    Raises:
        DataError: there are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and has_image_magic(_head(path)))
    if not files:
        raise DataError(f"{folder}: no images there; give --images a folder of image files")
    return files


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)


def reference_transform(kind: str, size: int = 224) -> Callable[[Image.Image], Tensor]:
    """Return the training transform of torchvision's references/classification on Pillow images."""
    if kind == "area":
        cut: list[Callable] = [transforms.RandomResizedCrop(size)]
    else:
        cut = [_resize_shorter_side, transforms.RandomCrop(size)]
    return transforms.Compose(
        [
            *cut,
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float32),
            transforms.Normalize(MEAN, STD),
        ]
    )


def _resize_shorter_side(image: Image.Image) -> Image.Image:
    return functional.resize(image, python_random.randint(256, 480))


def reference_batches(files: list[Path], kind: str) -> Callable[[], None]:
    """Return a call that reads all files as torchvision's reference does: float32 batches."""
    transform = reference_transform(kind)

    def run() -> None:
        for part in _parts(files):
            samples = []
            for path in part:
                with open(path, "rb") as file:
                    samples.append((transform(Image.open(file).convert("RGB")), 0))
            default_collate(samples)

    return run


def our_batches(files: list[Path], spec: CropSpec) -> Callable[[], None]:
    """Return a call that reads all files as `tools/pretrain.py` does: uint8 batches, normalised on the device."""

    def run() -> None:
        position = 0
        for part in _parts(files):
            crops = []
            for path in part:
                position += 1
                crops.append(training_crop(np.fromfile(path, np.uint8), np.random.default_rng((0, 1, position)), spec))
            torch.from_numpy(np.stack(crops))

    return run


def _parts(items: list) -> Iterator[list]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def profile(files: list[Path], spec: CropSpec, *, rounds: int) -> dict[str, float]:
    """Return the seconds an image that each of STAGES takes, from the medians of the pipeline cut off after each."""
    contents = [np.fromfile(path, np.uint8) for path in files]
    frames = [read_frame(content.tobytes()) for content in contents]
    known = [(content, frame) for content, frame in zip(contents, frames) if frame is not None]
    boxes = [_draw(content, number, spec) for number, (content, _) in enumerate(known)]
    regions = [_decode(content, frame, box, spec) for (content, frame), box in zip(known, boxes)]
    crops = [training_crop(content, np.random.default_rng(number), spec) for number, (content, _) in enumerate(known)]

    def each(call: Callable[[int], object]) -> Callable[[], None]:
        def run() -> None:
            for number in range(len(known)):
                call(number)

        return run

    timings = alternate(
        {
            "read": each(lambda i: np.fromfile(files[i], np.uint8)),
            "header and draw": each(lambda i: _draw(known[i][0], i, spec)),
            "decode": each(lambda i: _decode(*known[i], boxes[i], spec)),
            "resize": each(lambda i: resize(regions[i], spec.size, spec.size)),
            "crop": each(lambda i: training_crop(known[i][0], np.random.default_rng((0, 1, i)), spec)),
            "batch": lambda: [np.stack(part) for part in _parts(crops)],
        },
        rounds=rounds,
    )
    seconds = {name: timing.median / len(known) for name, timing in timings.items()}
    inside = sum(seconds[name] for name in ("header and draw", "decode", "resize"))
    seconds["the rest of the crop"] = max(0.0, seconds.pop("crop") - inside)
    return {name: seconds[name] for name in STAGES}


def _draw(content: np.ndarray, number: int, spec: CropSpec):
    data = content.tobytes()
    frame = read_frame(data)
    orientation = read_header(data).orientation if frame.exif else 1
    width, height = (frame.height, frame.width) if orientation > 4 else (frame.width, frame.height)
    box = draw_box(width, height, np.random.default_rng((0, 1, number)), spec)
    return stored_box(box, width, height, orientation)


def _decode(content: np.ndarray, frame, box, spec: CropSpec) -> np.ndarray:
    reduction = choose_reduction(box, spec.size)
    return decode_region(content, frame, align(box, reduction), reduction=reduction)


def measure(folder: Path, *, rounds: int) -> Section:
    """Time all images of a folder through both recipes, in this process, on one thread."""
    files = find_images(folder)
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        rows, figures, notes = [], {}, []
        for kind, title in RECIPES.items():
            spec = CropSpec(kind)
            timings = alternate(
                {
                    "torchvision, Pillow": reference_batches(files, kind),
                    "ours": our_batches(files, spec),
                    "ours, not antialiased": our_batches(files, replace(spec, interpolation="linear")),
                },
                rounds=rounds,
            )
            rows += _rows(timings, title, len(files))
            figures[kind] = {label: {"ms": 1000 * t.median / len(files)} for label, t in timings.items()}
            stages = {name: 1000 * value for name, value in profile(files, spec, rounds=rounds).items()}
            figures[kind]["profile"] = stages
            notes.append(f"Ours, {title}: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in stages.items()) + ".")
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    return Section(
        name="input",
        title="Reading training images",
        method=(
            f"{len(files)} files from the file cache to batches of {BATCH} crops of 224x224; one process, one thread, "
            f"in turn, median of {rounds} rounds. torchvision: the transforms of its references/classification on "
            "Pillow images, float32 batches. Ours: uint8 batches, normalised on the device."
        ),
        header=["recipe", "pipeline", "ms an image", "images/s", "times torchvision", "slowest/fastest"],
        rows=rows,
        notes=notes,
        figures=figures,
    )


def _rows(timings: dict[str, Timing], title: str, images: int) -> list[list[object]]:
    peer = timings["torchvision, Pillow"].median
    return [
        [title, label, 1000 * t.median / images, round(images / t.median), peer / t.median, t.spread]
        for label, t in timings.items()
    ]

"""CIFAR-10 and CIFAR-100 as people have them: the official batches, an .npz, an image folder or a zip of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import DataError, WeightsError
from ...common.images import decode_image
from ...common.reading import Arrays
from ...common.text import some
from .folders import open_class_folders
from .sets import ImagesInMemory

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The fine classes, in the official order, that of the alphabet.
FINE = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm"""


@dataclass(frozen=True)
class Cifar:
    """One of the two sets.

    Attributes:
        title: for people; folder: that holds the official batches.
        batches: of each split; label: the key of their labels.
    """

    title: str
    classes: tuple[str, ...]
    folder: str
    batches: dict[str, list[str]]
    label: str


# Images in one of several official batches.
BATCH = 10_000
# By DATA.NAME.
SETS = {
    "cifar10": Cifar(
        "CIFAR-10",
        CLASSES,
        "cifar-10-batches-py",
        {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
        "labels",
    ),
    "cifar100": Cifar(
        "CIFAR-100", tuple(FINE.split()), "cifar-100-python", {"train": ["train"], "test": ["test"]}, "fine_labels"
    ),
}


def open_cifar(root: Path, split: str, kind: str = "cifar10") -> ImagesInMemory:
    """Read CIFAR-10 or CIFAR-100 (its fine classes).

    Args:
        root: the folder that holds torchvision's `cifar-10-batches-py` or `cifar-100-python` (or that folder), an .npz,
            an image folder `train/<class>/`, `test/<class>/`, or a zip archive of one; or a folder with one .npz or
            .zip.
        split: "train" or "test".
        kind: one of SETS.

    Raises:
        DataError: nothing of that kind there, several, or it is broken.
    """
    name, of = f"{kind} {split}", SETS[kind]
    root = _only_file(root, of) or root
    folder = next((f for f in (root, root / of.folder) if (f / of.batches[split][0]).is_file()), None)
    if folder is not None:
        return _from_batches(folder, split, name, of)
    if root.suffix == ".npz" and root.is_file():
        return _from_npz(root, split, name, of)
    if root.suffix == ".zip" or (root / split).is_dir():
        return _from_images(root, split, name, of)
    found = sorted(path.name for path in root.iterdir())[:6] if root.is_dir() else []
    batch = f"{of.folder}/{of.batches[split][0]}"
    raise DataError(
        f"{root}: no {of.title} there: expected {batch}, an .npz, a .zip, or {split}/<class>/ with images"
        + (f"; it holds {', '.join(found)}" if found else "")
    )


def _only_file(root: Path, of: Cifar) -> Path | None:
    """Return the .npz or .zip of a folder that holds the set in no other form; None where there is none.

    Raises:
        DataError: there are several.
    """
    if not root.is_dir() or any((root / known).exists() for known in (of.folder, "train", "test", "test_batch")):
        return None
    files = sorted(path for path in root.iterdir() if path.suffix in (".npz", ".zip") and path.is_file())
    if len(files) > 1:
        raise DataError(f"{root}: holds {' and '.join(path.name for path in files)}; give one of them as --data-root")
    return files[0] if files else None


def _from_batches(folder: Path, split: str, name: str, of: Cifar) -> ImagesInMemory:
    from ...weights.files import read_file

    pixels, labels = [], []
    for batch in of.batches[split]:
        path = folder / batch
        try:
            # Through the unpickler that builds arrays and plain containers alone.
            content = read_file(path)[0]
        except WeightsError as error:
            problem = str(error).removeprefix(f"{path}: ").replace("weights file", "file")
            raise DataError(f"{path}: no batch of {of.title}: {problem}") from None
        values = [_value(content, key) for key in ("data", of.label)]
        if any(value is None for value in values):
            raise DataError(f"{path}: not a batch of {of.title}: no mapping with data and {of.label}")
        pixels.append(_images(values[0], path))
        labels.append(_labels(values[1], len(pixels[-1]), path, of))
    return _in_memory(name, np.concatenate(labels), np.concatenate(pixels), folder, of)


def _value(content: object, key: str) -> Any:
    """Return a value of a batch, whose keys are bytes in the official ones; None where there is none."""
    return content.get(key.encode(), content.get(key)) if isinstance(content, dict) else None


def _in_memory(name: str, labels: np.ndarray, pixels: np.ndarray, path: Path, of: Cifar) -> ImagesInMemory:
    if not len(pixels):
        raise DataError(f"{path}: has no images for {name}")
    found = ImagesInMemory(name, of.classes, labels, pixels)
    absent = [of.classes[label] for label in np.setdiff1d(range(len(of.classes)), labels)]
    found.note = f"no images of {some(absent)}" if absent else ""
    return found


def _images(values: Any, path: Path) -> np.ndarray:
    """Return (N, 32, 32, 3) uint8, of rows of 3072 (1024 red, 1024 green, 1024 blue) or of (N, 3, 32, 32) too."""
    values = _as_array(values)
    if (
        values.dtype != np.uint8
        and values.dtype.kind in "iu"
        and values.size
        and 0 <= values.min() <= values.max() < 256
    ):
        values = values.astype(np.uint8)
    if values.ndim == 2 and values.shape[1] == 3072:
        values = values.reshape(-1, 3, 32, 32)
    if values.ndim == 4 and values.shape[1:] == (3, 32, 32):
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    if values.dtype != np.uint8 or values.ndim != 4 or values.shape[1:] != (32, 32, 3):
        raise DataError(
            f"{path}: images must be numbers from 0 to 255, (N, 32, 32, 3) or rows of 3072, not {values.dtype} "
            f"{values.shape}"
        )
    return values


def _labels(values: Any, images: int, path: Path, of: Cifar) -> np.ndarray:
    """Return labels as (N,) int64."""
    labels = _as_array(values)
    if labels.dtype.kind not in "iu" and labels.size:
        raise DataError(f"{path}: labels must be whole numbers from 0 to {len(of.classes) - 1}, not {labels.dtype}")
    if labels.size != images:
        raise DataError(f"{path}: {images} images, but {labels.size} labels")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(of.classes):
        raise DataError(f"{path}: labels from {labels.min()} to {labels.max()}, but {len(of.classes)} classes")
    return labels.reshape(-1).astype(np.int64)


def _as_array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError):  # lists of different lengths, and their like
        return np.asarray(None)


def _from_npz(path: Path, split: str, name: str, of: Cifar) -> ImagesInMemory:
    pixels, labels = _pick(Arrays(path), split, path, of)
    pixels = _images(pixels, path)
    return _in_memory(name, _labels(labels, len(pixels), path, of), pixels, path, of)


def _pick(arrays: Mapping[str, np.ndarray], split: str, path: Path, of: Cifar) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a split; of a file with parts of the official batches, those parts."""
    for images, labels in ((f"{split}_images", f"{split}_labels"), (f"x_{split}", f"y_{split}")):
        if images in arrays and labels in arrays:
            return arrays[images], arrays[labels]
    parts = []
    for number, batch in enumerate(of.batches[split]):
        keys = [key for key in sorted(arrays) if re.fullmatch(rf"{batch}(_first\d+)?", key)]
        parts += [(BATCH * number, _images(arrays[key], path)) for key in keys]
    if f"{split}_labels" not in arrays or not parts:
        raise DataError(
            f"{path}: no {split} images and labels; expected {split}_images and {split}_labels, or x_{split} and "
            f"y_{split}; it has {', '.join(sorted(arrays)[:8])}"
        )
    labels = _as_array(arrays[f"{split}_labels"]).reshape(-1)
    chosen = [labels[start : start + len(rows)] for start, rows in parts]
    return np.concatenate([rows for _, rows in parts]), np.concatenate(chosen)


def _from_images(root: Path, split: str, name: str, of: Cifar) -> ImagesInMemory:
    files = open_class_folders(root, split, name, of.classes)
    pixels = np.empty((len(files), 32, 32, 3), dtype=np.uint8)
    for index in range(len(files)):
        image = decode_image(files.content(index), files.place(index))
        if image.shape != (32, 32, 3):
            raise DataError(f"{files.place(index)}: {of.title} images have 32 x 32 pixels, not {image.shape[:2]}")
        pixels[index] = image[:, :, ::-1]
    return ImagesInMemory(name, of.classes, files.labels, pixels)

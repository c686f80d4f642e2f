"""CIFAR-10 in the forms that people have it: the official batches, an .npz, an image folder or a zip of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import DataError, WeightsError
from ...common.images import decode_image
from .folders import open_class_folders
from .sets import ImagesInMemory

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def open_cifar10(root: Path, split: str) -> ImagesInMemory:
    """Read CIFAR-10.

    Args:
        root: the folder that holds torchvision's `cifar-10-batches-py` (or that folder), an .npz, an image folder
            `train/<class>/`, `test/<class>/`, or a zip archive of one; or a folder with one .npz or .zip.
        split: "train" or "test".

    Raises:
        DataError: nothing of that kind there, several, or it is broken.
    """
    name = f"cifar10 {split}"
    root = _only_file(root) or root
    folder = next((f for f in (root, root / FOLDER) if (f / BATCHES[split][0]).is_file()), None)
    if folder is not None:
        return _from_batches(folder, split, name)
    if root.suffix == ".npz" and root.is_file():
        return _from_npz(root, split, name)
    if root.suffix == ".zip" or (root / split).is_dir():
        return _from_images(root, split, name)
    found = sorted(path.name for path in root.iterdir())[:6] if root.is_dir() else []
    raise DataError(
        f"{root}: no CIFAR-10 there: expected {FOLDER}/, an .npz, a .zip, or {split}/<class>/ with images"
        + (f"; it holds {', '.join(found)}" if found else "")
    )


def _only_file(root: Path) -> Path | None:
    """Return the .npz or .zip of a folder that holds CIFAR-10 in no other form; None where there is none.

    Raises:
        DataError: there are several.
    """
    if not root.is_dir() or any((root / known).exists() for known in (FOLDER, "train", "test", "test_batch")):
        return None
    files = sorted(path for path in root.iterdir() if path.suffix in (".npz", ".zip") and path.is_file())
    if len(files) > 1:
        raise DataError(f"{root}: holds {' and '.join(path.name for path in files)}; give one of them as --data-root")
    return files[0] if files else None


def _from_batches(folder: Path, split: str, name: str) -> ImagesInMemory:
    from ...weights.files import read_file

    pixels, labels = [], []
    for batch in BATCHES[split]:
        path = folder / batch
        try:
            # Through the unpickler that builds arrays and plain containers alone.
            content = read_file(path)[0]
        except WeightsError as error:
            raise DataError(str(error)) from None
        data = {key.decode() if isinstance(key, bytes) else key: value for key, value in dict(content).items()}
        if "data" not in data or "labels" not in data:
            raise DataError(f"{path}: not a CIFAR-10 batch: it has no data or no labels")
        pixels.append(_rows(data["data"], path))
        labels.append(np.asarray(data["labels"]))
    return ImagesInMemory(name, CLASSES, np.concatenate(labels), np.concatenate(pixels))


def _rows(rows: Any, path: Path) -> np.ndarray:
    """Return rows of 3072 (1024 red, 1024 green, 1024 blue) as images."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != 3072:
        raise DataError(f"{path}: rows of 3072 pixels are expected, not an array of shape {rows.shape}")
    return np.ascontiguousarray(rows.astype(np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _from_npz(path: Path, split: str, name: str) -> ImagesInMemory:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npz of plain arrays: {error}") from None
    pixels, labels = _pick(arrays, split, path)
    if pixels.ndim == 2:
        pixels = _rows(pixels, path)
    elif pixels.ndim == 4 and pixels.shape[1] == 3:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise DataError(f"{path}: images must be uint8 (N, 32, 32, 3) or rows of 3072, not {pixels.shape}")
    return ImagesInMemory(name, CLASSES, labels.reshape(-1), pixels)


def _pick(arrays: Mapping[str, np.ndarray], split: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a split; of a file with parts of the official batches, those parts."""
    for images, labels in ((f"{split}_images", f"{split}_labels"), (f"x_{split}", f"y_{split}")):
        if images in arrays and labels in arrays:
            return arrays[images], arrays[labels]
    labels = arrays.get(f"{split}_labels")
    parts = []
    for key in sorted(arrays):
        match = re.fullmatch(r"(data_batch_(\d)|test_batch)(_first\d+)?", key)
        if match and (match[1] == "test_batch") == (split == "test"):
            start = 10000 * (int(match[2]) - 1) if match[2] else 0
            parts.append((start, arrays[key]))
    if labels is None or not parts:
        raise DataError(
            f"{path}: no {split} images and labels; expected {split}_images and {split}_labels, or x_{split} and "
            f"y_{split}; it has {', '.join(sorted(arrays)[:8])}"
        )
    chosen = [labels[start : start + len(rows)] for start, rows in parts]
    return np.concatenate([rows for _, rows in parts]), np.concatenate(chosen)


def _from_images(root: Path, split: str, name: str) -> ImagesInMemory:
    files = open_class_folders(root, split, name, CLASSES)
    pixels = np.empty((len(files), 32, 32, 3), dtype=np.uint8)
    for index in range(len(files)):
        image = decode_image(files.content(index), files.place(index))
        if image.shape != (32, 32, 3):
            raise DataError(f"{files.place(index)}: CIFAR-10 images have 32 x 32 pixels, not {image.shape[:2]}")
        pixels[index] = image[:, :, ::-1]
    return ImagesInMemory(name, CLASSES, files.labels, pixels)

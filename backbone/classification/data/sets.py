"""Labelled images: in memory (CIFAR) or as files (ImageNet, folders, archives)."""

from __future__ import annotations

import copy
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ...common.errors import DataError
from ...common.images import decode_image

# What a file, or a damaged, encrypted or strangely packed member of an archive raises.
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, NotImplementedError)

LARGEST_FILE = 2**30  # bytes that an image in an archive may unpack to


class LabelledImages(ABC):
    """A set of images with one class each.

    Attributes:
        name: for plans and results, such as "cifar10 train".
        classes: names by class index.
        labels: (N,) int64 class indices.
        note: what the plan says of the set, or "".
        held_out: of a set that was divided from the training set, the names of all images held out; it may have fewer.
        reading: keywords of `read_image` that say what the channels of the images are.
    """

    note = ""
    held_out: Sequence[str] = ()
    reading: Mapping[str, Any] = MappingProxyType({"channel_order": "RGB"})

    def __init__(self, name: str, classes: Sequence[str], labels: np.ndarray) -> None:
        self.name = name
        self.classes = list(classes)
        self.labels = np.asarray(labels, dtype=np.int64)
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(
                f"{name}: labels from {self.labels.min()} to {self.labels.max()}, but {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def renumbered(self, classes: Sequence[str]) -> LabelledImages:
        """Return the set with the indices of `classes`, among which are all of its own."""
        other = copy.copy(self)
        other.classes = list(classes)
        index = {name: place for place, name in enumerate(classes)}
        other.labels = np.array([index[name] for name in self.classes], dtype=np.int64)[self.labels]
        return other

    @abstractmethod
    def content(self, index: int) -> np.ndarray:
        """Return an image: decoded, (H, W, 3) uint8 RGB, or the bytes of its file, (length,) uint8.

        Raises:
            DataError: it cannot be read; the message leaves the place out.
        """

    def decoded(self, index: int) -> np.ndarray:
        """Return an image, (H, W, C), its channels as `reading` says; RGB by default.

        Raises:
            DataError: it cannot be read.
        """
        content = self.content(index)
        return content if content.ndim == 3 else decode_image(content, self.place(index), **self.reading)

    @abstractmethod
    def place(self, index: int) -> str:
        """Return where an image comes from, for messages."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> LabelledImages:
        """Return the set of some of its images."""

    def first(self, number: int) -> LabelledImages:
        """Return the set of its first `number` images."""
        return self.take(np.arange(min(number, len(self))))

    def names(self) -> list[str]:
        """Return the images' names, each once, the same wherever the set lies."""
        return [str(index) for index in range(len(self))]


class ImagesInMemory(LabelledImages):
    """Images of one size.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB.
    """

    def __init__(self, name: str, classes: Sequence[str], labels: np.ndarray, pixels: np.ndarray) -> None:
        super().__init__(name, classes, labels)
        if len(pixels) != len(self.labels):
            raise DataError(f"{name}: {len(pixels)} images, but {len(self.labels)} labels")
        self.pixels = pixels

    def content(self, index: int) -> np.ndarray:
        return self.pixels[index]

    def place(self, index: int) -> str:
        return f"{self.name}, image {index}"

    def take(self, rows: np.ndarray) -> ImagesInMemory:
        return ImagesInMemory(self.name, self.classes, self.labels[rows], self.pixels[rows])


class ImageFiles(LabelledImages):
    """Images in a folder, or in a zip archive that is read in place.

    Attributes:
        root: folder or archive.
        files: (N,) paths below it.
    """

    def __init__(self, name: str, classes: Sequence[str], labels: np.ndarray, root: Path, files: Sequence[str]) -> None:
        super().__init__(name, classes, labels)
        self.root = root
        # One array instead of a list of a million texts: forked loaders share its pages.
        self.files = np.asarray(files)
        self._archive: zipfile.ZipFile | None = None

    def content(self, index: int) -> np.ndarray:
        name = str(self.files[index])
        try:
            if self.root.is_dir():
                with open(self.root / name, "rb", buffering=0) as file:
                    return np.frombuffer(file.read(), dtype=np.uint8)
            archive = self._open_archive()
            if archive.getinfo(name).file_size > LARGEST_FILE:
                raise OSError(f"unpacks to {archive.getinfo(name).file_size:,} bytes")
            return np.frombuffer(archive.read(name), dtype=np.uint8)
        except UNREADABLE as error:
            raise DataError(f"cannot be read: {error}") from None

    def place(self, index: int) -> str:
        return f"{self.root}/{self.files[index]}"

    def take(self, rows: np.ndarray) -> ImageFiles:
        return ImageFiles(self.name, self.classes, self.labels[rows], self.root, self.files[rows])

    def names(self) -> list[str]:
        return self.files.tolist()

    def _open_archive(self) -> zipfile.ZipFile:
        # Opened where it is used: an open file is not shared between processes.
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.root)
        return self._archive

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_archive": None}

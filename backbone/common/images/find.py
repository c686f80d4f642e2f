"""Which files of a folder are images or videos, by their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm"),
)
BANDS_SUFFIXES = (".npy",)
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")


def is_image_name(name: str) -> bool:
    """Whether a file name is an image's. Hidden files are none: macOS writes ._a.jpg beside a.jpg on other disks."""
    return _ends_with(name, SUFFIXES)


def is_bands_name(name: str) -> bool:
    """Whether a file name is of an array of NumPy, which may be an image of bands; hidden files are none."""
    return _ends_with(name, BANDS_SUFFIXES)


def is_video_name(name: str) -> bool:
    """Whether a file name is a video's; hidden files are none."""
    return _ends_with(name, VIDEO_SUFFIXES)


def _ends_with(name: str, suffixes: Collection[str]) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes


def list_images(folder: str | Path) -> list[str]:
    """Return the names of the image files in a folder, sorted; named pipes and their like are left out.

    Where there are none, images of bands: NumPy's arrays. Beside others, arrays are something else.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    return list(filter(is_image_name, names)) or list(filter(is_bands_name, names))


def list_folders(folder: str | Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; hidden ones (.git, .ipynb_checkpoints) are left out."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def walk_files(folder: str | Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Yield the files below a folder, at any depth, whose name is wanted, sorted; hidden folders are left out."""
    with os.scandir(folder) as entries:
        found = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in entries
            if (wanted(entry.name) and entry.is_file())
            or (not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False))
        )
    for name, is_folder in found:
        path = Path(folder, name)
        if is_folder:
            yield from walk_files(path, wanted)
        else:
            yield path


def find_images(folder: str | Path) -> list[Path]:
    """Return the image files below a folder at any depth, sorted; hidden folders are left out."""
    return list(walk_files(folder, is_image_name))

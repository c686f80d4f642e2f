"""Which files of a folder are images, by their names."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm"),
)
BANDS = ".npy"


def is_image_name(name: str) -> bool:
    """Whether a file name is an image's. Hidden files are none: macOS writes ._a.jpg beside a.jpg on other disks."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def list_images(folder: str | Path) -> list[str]:
    """Return the names of the image files in a folder, sorted; named pipes and their like are left out.

    Where there are none, images of bands: NumPy's arrays. Beside others, arrays are something else.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    return list(filter(is_image_name, names)) or [name for name in names if name.lower().endswith(BANDS)]


def list_folders(folder: str | Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; hidden ones (.git, .ipynb_checkpoints) are left out."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def find_images(folder: str | Path) -> list[Path]:
    """Return the image files below a folder at any depth, sorted; hidden folders are left out."""
    found = []
    for parent, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in list_images(parent)]
    return sorted(found)

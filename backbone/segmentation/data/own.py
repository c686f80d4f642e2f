"""A set of one's own, named by its path: its form is found out by what lies there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...common.errors import DataError
from ...common.own_data import by_seed
from ...common.text import count, some
from .cityscapes import IMAGES as CITYSCAPES
from .cityscapes import open_cityscapes
from .coco import open_coco
from .folders import PARTS, has_pair, open_folders
from .sets import SegmentationSet
from .voc import LISTS, open_voc

LOOKED_FOR = (
    "images/ with labels/ or masks/ (a folder for each part below or above), masks beside the images (a_mask.png), "
    "Cityscapes (leftImg8bit/), PASCAL VOC (ImageSets/Segmentation/*.txt), COCO JSON (*.json)"
)


def open_own(
    path: Path, part: str, images: Path | None, data: Any, known: Sequence[str] = (), *, check: bool = True
) -> SegmentationSet:
    """Open a COCO JSON file, or a folder with label images in any of the forms of docs/segmentation.md.

    Args:
        part: "train" or "val"; of a set without parts, all of it is "train".
        images: the images' folder of a JSON file, where it is not near it.
        data: DATA of the config.
        known: the classes where no file names them.
        check: whether each label image must be there.

    Raises:
        DataError: nothing is there, no known form, or as the form's reader says.
    """
    path = path.expanduser()
    name = f"{path.name} {part}"
    if os.path.isfile(path):
        if path.suffix.lower() != ".json":
            raise DataError(f"{path}: no set for segmentation; give a COCO JSON file or a folder with {LOOKED_FOR}")
        return open_coco(f"{name} (COCO JSON)", path, images, part=part)
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a COCO JSON file or the folder of a data set")
    if images is not None:
        raise DataError(f"{path}: --{part}-images belongs to a COCO JSON file; this is a folder")
    if (path / CITYSCAPES).is_dir():
        return open_cityscapes(path, part, data, check=check)
    if (path / LISTS).is_dir():
        lists = [split for split in PARTS[part] if (path / LISTS / f"{split}.txt").is_file()]
        return open_voc(path, lists[0] if lists else part, data, check=check)
    split = label_split(path, part)
    if split is not None:
        return open_folders(path, split, data, known, f"{name} (label images)", check=check)
    files = list(_json_files(path, part))
    if len(files) == 1:
        return open_coco(f"{name} (COCO JSON)", files[0], images, part=part)
    holds = some(sorted(os.listdir(path))) or "nothing"
    mend = f"{some(files)} may be meant, name one" if files else f"looked for {LOOKED_FOR}; it holds {holds}"
    raise DataError(f"{path}: no set for segmentation in a known form (for {part}); {mend}")


def is_set(path: Path, part: str) -> bool:
    """Whether a path is a set of images with labels that `open_own` reads, not label images alone."""
    if os.path.isfile(path):
        return path.suffix.lower() == ".json"
    trees = any((path / name).is_dir() for name in (CITYSCAPES, LISTS))
    return trees or label_split(path, part) is not None or any(_json_files(path, part))


def has_part(path: Path, part: str) -> bool:
    """Whether a folder has this part of a set apart from the part to train on."""
    path = path.expanduser()
    if not path.is_dir():
        return False
    if (path / CITYSCAPES).is_dir():
        return (path / CITYSCAPES / part).is_dir()
    if any((path / LISTS / f"{split}.txt").is_file() for split in PARTS[part]) or has_pair(path, part):
        return True
    return bool(set(_json_files(path, part)) - set(_json_files(path, "train")))


def hold_out(
    images: SegmentationSet, share: float, seed: int, chosen: Sequence[str] | None = None
) -> tuple[SegmentationSet, SegmentationSet]:
    """Return a set without, and with, the images that are held out: by name, so that more images change little of it.

    Args:
        chosen: the images' names, where they have been chosen before.

    Raises:
        DataError: nothing is left on one side.
    """
    names = images.names()
    held = set(by_seed(names, seed)[: max(1, round(share * len(names)))] if chosen is None else chosen)
    rows = [name in held for name in names]
    if all(rows) or not any(rows):
        raise DataError(f"{images.name}: {count(len(names), 'image')} cannot be divided; give --val")
    train, test = (images.take([index for index, row in enumerate(rows) if row is side]) for side in (False, True))
    test.name = f"{share:.3g} of {images.name} held out"
    # As the whole set calls them.
    test.held_out = [name for name, row in zip(names, rows) if row]
    return train, test


def label_split(path: Path, part: str) -> str | None:
    """Return what a part of a folder with label images is called there, "" where it has no parts; None if it has none.

    A folder that holds one part alone is that part, whatever it is called.
    """
    if has_pair(path, part):
        return part
    others = [name for name in PARTS if name != part and has_pair(path, name)]
    return "" if not others and has_pair(path, "") else None


def _json_files(path: Path, part: str) -> Iterator[Path]:
    for folder in (path, path / "annotations", *(path / name for name in PARTS[part])):
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        files = [file for file in files if file.name.startswith("instances_")] or files
        others = [name for key, names in PARTS.items() if key != part for name in names]
        named = [file for file in files if any(name in file.stem for name in PARTS[part])]
        yield from named or [file for file in files if not any(name in file.stem for name in others)]

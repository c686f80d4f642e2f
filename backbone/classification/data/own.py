"""Data of one's own in the forms that people have it: a folder a class, tar shards, or a CSV of images and classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...common.errors import ConfigError, DataError
from ...common.images import is_image_name, list_folders, list_images
from ...common.own_data import (
    IMAGE,
    LABEL,
    PARTS,
    by_seed,
    files_of_kind,
    find_folder,
    is_of_part,
    leaves_folder,
    part_folder,
    read_table,
    words_of,
)
from ...common.text import count, nearest, some
from ...engine.held_out import check_share
from .folders import open_class_folders, splits_of
from .sets import ImageFiles, LabelledImages
from .shards import open_shards

# The share that is held out where there is no validation set, and nobody says which.
SPLIT = 0.1
LOOKED_FOR = "<class>/<image>, tar shards (*.tar), a CSV of image,label"
# What a column of images may be called besides; such names often lack their suffix.
IDS = ("id", "imageid")
TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class Place:
    """Where a set lies.

    Attributes:
        form: "class folders", "tar shards" or "CSV".
        source: the folder, archive or file; of shards the first.
        inside: of a zip archive, the part in it, else "".
        shards: of tar shards, all of them.
    """

    form: str
    source: Path
    inside: str = ""
    shards: tuple[Path, ...] = ()


def own_data_keys(
    train: str | None, val: str | None, split: float | None, train_images: str | None, val_images: str | None
) -> list[object]:
    """Return KEY, VALUE, ... for --train, --val and --split; [] where none is given.

    Raises:
        ConfigError: they do not fit together.
        DataError: nothing at --train.
    """
    for part, path, images in (("train", train, train_images), ("val", val, val_images)):
        if path is None and images is not None:
            raise ConfigError(f"--{part}-images is the folder of the images of --{part}, a CSV; give --{part} too")
    if split is not None:
        check_share(split, train=train is not None, val=val is not None)
    if train is None and val is None:
        return []
    keys: list[object] = ["DATA.NAME", "own", "DATA.TRAIN", train or "", "DATA.VAL", val or ""]
    for key, value in (("DATA.TRAIN_FOLDER", train_images), ("DATA.VAL_FOLDER", val_images)):
        keys += [key, value] if value is not None else []
    if val is None and split is None and has_part(train, "val"):
        return [*keys, "DATA.VAL", train]
    return keys if val is not None else [*keys, "DATA.SPLIT", split or SPLIT]


def open_own(path: str, part: str, classes: Sequence[str] | None, images: str = "") -> LabelledImages:
    """Read a set.

    Args:
        part: "train" or "val": which one is meant, of a data set with both.
        classes: what the classes must be, in order; by default the names that are found, by the alphabet.
        images: of a CSV, the folder of the images; by default it is found.

    Raises:
        DataError: nothing there, of no known form or of several, or broken.
    """
    place = find_place(path, part)
    name = f"{part} ({place.form})"
    if place.form == "CSV":
        return _open_table(place.source, Path(images).expanduser() if images else None, name, classes)
    if images:
        raise DataError(f"--{part}-images {images}: {path} holds {place.form}, which have their images; leave it out")
    if place.form == "tar shards":
        return open_shards(list(place.shards), name, classes)
    return open_class_folders(place.source, place.inside, name, classes)


def find_place(path: str | Path, part: str) -> Place:
    """Return where the part of a data set lies; of a set without parts, the whole.

    Raises:
        DataError: nothing there, no known form, or several.
    """
    path = Path(path).expanduser()
    if os.path.isdir(path):
        found = list(_in_folder(path, part))
        if len(found) > 1:
            shown = ", ".join(f"{place.form} ({place.source})" for place in found)
            raise DataError(f"{path}: any of {shown} may be meant; name one of them")
        if not found:
            names = sorted(os.listdir(path))
            held = some([name for name in names if not is_image_name(name)]) or ("images alone" if names else "nothing")
            raise DataError(f"{path}: no labelled images (for {part}); looked for {LOOKED_FOR}; it holds {held}")
        return found[0]
    if not os.path.lexists(path):
        raise DataError(f"{path} does not exist; give a folder of class folders, tar shards or a CSV")
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return Place("CSV", path)
    if suffix == ".tar":
        return Place("tar shards", path, shards=(path,))
    if suffix == ".zip":
        return Place("class folders", path, _part_inside(path, part))
    raise DataError(f"{path}: no known form of labelled images; give a folder, .zip, .tar or .csv")


def has_part(path: str | Path, part: str) -> bool:
    """Whether a data set has this part apart from the others, such as a folder valid/ or a file val.csv.

    Beside a part for training, one for tests stands for the validation.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() == ".zip" and path.is_file():
        return bool(_part_inside(path, part))
    if not path.is_dir():
        return False
    files = [file for suffix in (*TABLES, ".tar") for file in files_of_kind(path, suffix)]
    return _inner(path, part) is not None or any(is_of_part(file.stem, part) for file in files)


def hold_out(
    images: LabelledImages, share: float, seed: int, chosen: Sequence[str] | None = None
) -> tuple[LabelledImages, LabelledImages]:
    """Return a set without, and with, the images that are held out: a share of each class.

    The choice is by name, so images that are added later change little of it. A class of one image keeps it.

    Args:
        chosen: the images' names, where they have been chosen before.

    Raises:
        DataError: nothing is left on one side.
    """
    names = np.array(images.names())
    if chosen is None:
        chosen = []
        for label in range(len(images.classes)):
            rows = np.flatnonzero(images.labels == label)
            wanted = min(max(1, round(share * len(rows))), len(rows) - 1)
            chosen += by_seed(names[rows].tolist(), seed)[: max(0, wanted)]
    held = np.isin(names, np.array(chosen, dtype=names.dtype if not chosen else None))
    if held.all() or not held.any():
        raise DataError(f"{images.name}: {count(len(images), 'image')} cannot be divided; give a validation set")
    train, test = images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held))
    test.name = f"{share:.3g} of {images.name} held out"
    return train, test


def _in_folder(path: Path, part: str) -> Iterator[Place]:
    found = [Place("CSV", file) for suffix in TABLES for file in _of_part(files_of_kind(path, suffix), part)]
    if shards := _of_part(files_of_kind(path, ".tar"), part):
        found.append(Place("tar shards", shards[0], shards=tuple(shards)))
    yield from found
    if inside := _inner(path, part):
        yield from _in_folder(inside, part)
    elif sum(bool(list_images(path / name)) for name in list_folders(path)) > bool(found):
        # Beside a table one folder has its images.
        yield Place("class folders", path)


def _inner(path: Path, part: str) -> Path | None:
    """Return the folder of a part; beside one for training, that for tests stands for the validation."""
    inside = part_folder(path, part)
    if inside is None and part == "val" and part_folder(path, "train"):
        return part_folder(path, "test")
    return inside


def _of_part(files: list[Path], part: str) -> list[Path]:
    named = [file for file in files if is_of_part(file.stem, part)]
    return named or [file for file in files if not any(is_of_part(file.stem, other) for other in PARTS)]


def _part_inside(archive: Path, part: str) -> str:
    """Return the part of a zip archive, "" of one without parts."""
    splits = splits_of(archive)
    wanted = PARTS[part] + (PARTS["test"] if part == "val" and set(PARTS["train"]) & set(splits) else ())
    return next((name for name in wanted if name in splits), "")


def _open_table(source: Path, folder: Path | None, name: str, classes: Sequence[str] | None) -> ImageFiles:
    lines = read_table(source, "image,label")
    image, label, body = _columns(lines, source)
    rows: dict[str, tuple[int, str]] = {}
    for number, fields in body:
        where = f"{source}, line {number}"
        if len(fields) != len(lines[0][1]):
            raise DataError(f"{where}: {count(len(fields), 'column')}, the first line has {len(lines[0][1])}")
        file, word = fields[image].replace("\\", "/").removeprefix("./"), fields[label]
        if not file or not word:
            raise DataError(f"{where}: no {'class' if file else 'image'}")
        if leaves_folder(file):
            raise DataError(f"{where}: the image {file!r} leads out of the folder; write names below it")
        if file in rows:
            raise DataError(f"{where}: {file} stands in line {rows[file][0]} already; write every image once")
        rows[file] = (number, word)
    if not rows:
        raise DataError(f"{source}: no line with an image")
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    files = list(rows) if all(is_image_name(Path(file).name) for file in rows) else None
    folder, files = (folder or find_folder(source, files), files) if files else _without_suffix(source, folder, rows)
    missing = next((file for file in files if not os.path.isfile(folder / file)), None)
    if missing is not None:
        raise DataError(f"{source}: the image {folder / missing} does not exist; add it, or take its line out")
    words = [word for _, word in rows.values()]
    numbers = all(word.isdecimal() for word in words)
    known = list(classes) if classes is not None else sorted(set(words), key=int if numbers else str)
    place = {word: index for index, word in enumerate(known)}
    strange = next(((number, word) for number, word in rows.values() if word not in place), None)
    if strange is not None:
        raise DataError(f"{source}, line {strange[0]}: {strange[1]!r} is no class{nearest(strange[1], known)}")
    return ImageFiles(name, known, np.array([place[word] for word in words]), folder, files)


def _columns(lines: list[tuple[int, list[str]]], source: Path) -> tuple[int, int, list[tuple[int, list[str]]]]:
    """Return the columns of image and class, and the lines behind the header."""
    first = lines[0][1]
    at = words_of(first)
    image = next((at[word] for word in (*IMAGE, *IDS) if word in at), None)
    if image is not None:
        label = next((at[word] for word in LABEL if at.get(word, image) != image), None)
        if label is None and len(first) == 2:
            label = 1 - image
        if label is not None:
            return image, label, lines[1:]
    elif len(first) == 2 and is_image_name(Path(first[0]).name):
        return 0, 1, lines
    raise DataError(f"{source}: no columns of image and class in {some(first, 8)}; write a header image,label")


def _without_suffix(source: Path, folder: Path | None, rows: dict[str, tuple[int, str]]) -> tuple[Path, list[str]]:
    """Return the folder and the files of images that are named without their suffix, as Kaggle's often are."""
    near = [folder] if folder is not None else [source.parent, source.parent / "images", source.parent / source.stem]
    near += [] if folder is not None else [inside for part in PARTS if (inside := part_folder(source.parent, part))]
    for place in near:
        stems = {os.path.splitext(name)[0]: name for name in list_images(place)} if place.is_dir() else {}
        if any(file in stems for file in rows):
            return place, [stems.get(file, file) for file in rows]
    first = next(iter(rows))
    raise DataError(f"{source}: its image {first!r} is not in {some(near)}; give the folder with --train-images")

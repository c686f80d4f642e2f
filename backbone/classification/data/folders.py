"""Image folders: a folder a class, or the flat validation set of ImageNet with a file of its classes."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ...common.errors import DataError
from ...common.images import is_image_name, list_folders, list_images
from ...common.reading import read_lines
from ...common.text import count, nearest
from .devkit import META, wnids_by_number
from .sets import ImageFiles

WNID = re.compile(r"n\d{8}")
# Of the development kit: a number a line, whose meaning stands in the meta.mat beside it.
DEVKIT_FILE = "ILSVRC2012_validation_ground_truth.txt"
# Files that name the class of each flat validation image, in the forms that people have; searched from the root down.
SYNSET_FILES = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "val_synsets.txt",
    DEVKIT_FILE,
    "val.txt",
)


def open_class_folders(root: Path, split: str, name: str, classes: Sequence[str] | None = None) -> ImageFiles:
    """Read `split`/<class>/<file> below a folder or in a zip archive.

    Args:
        classes: what the classes must be, in order; by default the folders' names, sorted.

    Raises:
        DataError: no such split, no images, a folder of an unknown class, or one without images where the folders say
            what the classes are; otherwise the set's note names it.
    """
    files = sorted(_images_below(root, split))
    if not files:
        raise DataError(
            f"{root}: no images in {split}/<class>/; splits there: {', '.join(splits_of(root)[:8]) or 'none'}"
        )
    names = [PurePosixPath(file).parts[-2] for file in files]
    empty = sorted(set(list_folders(root / split)) - set(names)) if root.is_dir() else []
    if empty and classes is None:
        raise DataError(
            f"{root / split}: {count(len(empty), 'class folder')} without images, first {empty[0]!r}; add images or "
            "remove the folder"
        )
    known = list(classes) if classes is not None else sorted(set(names))
    index = {label: position for position, label in enumerate(known)}
    strange = sorted(set(names) - set(index))
    if strange:
        raise DataError(
            f"{root}/{split}: folder {strange[0]!r} is no class of the training set{nearest(strange[0], known)}"
        )
    found = ImageFiles(name, known, np.array([index[label] for label in names]), root, files)
    found.note = f"no images in {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}" if empty else ""
    return found


def _images_below(root: Path, split: str) -> Iterable[str]:
    prefix = PurePosixPath(split)
    if root.is_dir():
        folder = root / split
        # Two levels alone: an ImageNet tree is not searched for deeper ones.
        for inner in list_folders(folder) if folder.is_dir() else ():
            for name in list_images(folder / inner):
                yield str(prefix / inner / name)
        return
    for entry in _entries(root):
        parts = PurePosixPath(entry).parts
        if len(parts) > 1 and parts[:-2] == prefix.parts and is_image_name(parts[-1]) and parts[-2][0] != ".":
            yield entry


def _entries(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive}: not a readable zip archive: {error}") from None


def splits_of(root: Path) -> list[str]:
    """Return the names of the folders at the top of a folder or a zip archive, sorted.

    Raises:
        DataError: the archive cannot be read.
    """
    if root.is_dir():
        names = [path.name for path in root.iterdir() if path.is_dir()]
    else:
        names = [PurePosixPath(entry).parts[0] for entry in _entries(root) if "/" in entry]
    return sorted(set(names))


def has_flat_images(root: Path, split: str) -> bool:
    """Whether images stand in `split` itself, not in a folder a class."""
    folder = root / split
    return folder.is_dir() and bool(list_images(folder))


def open_flat(root: Path, split: str, name: str, classes: Sequence[str], synsets: str = "") -> ImageFiles:
    """Read ImageNet's validation images as the official archive has them: flat, in the order of their numbers.

    Args:
        classes: the training set's, in order.
        synsets: the file that gives each image's class: a CSV of ImageId and PredictionString, lines of
            `file class`, or a line an image in the order of the names; a class is a wnid or an index into `classes`,
            in DEVKIT_FILE a number of the development kit. By default one of SYNSET_FILES below `root`.

    Raises:
        DataError: there is no such file, or it does not fit the images.
    """
    files = list_images(root / split)
    path = Path(synsets) if synsets else _find_synsets(root, split)
    lines = _read_lines(path)
    by_name = _by_name(lines, files)
    if by_name is None:
        if len(lines) != len(files):
            raise DataError(f"{path}: has {len(lines)} lines, {root / split} has {len(files)} images")
        labels = lines
    else:
        found = [by_name.get(file, by_name.get(Path(file).stem)) for file in files]
        if None in found:
            raise DataError(f"{path}: has no line for {files[found.index(None)]} of {root / split}")
        labels = [label for label in found if label is not None]
    if path.name == DEVKIT_FILE:
        labels = _wnids_of(labels, path)
    indices = np.array([_class_index(label, classes, path) for label in labels])
    return ImageFiles(name, classes, indices, root, [str(PurePosixPath(split) / file) for file in files])


def _find_synsets(root: Path, split: str) -> Path:
    for folder in (root, root / split, root.parent, root / "ILSVRC2012_devkit_t12" / "data"):
        for name in SYNSET_FILES:
            if (folder / name).is_file():
                return folder / name
    raise DataError(
        f"{root / split}: holds images without a folder a class; put a file with their classes beside it "
        f"({SYNSET_FILES[1]}: a wnid a line) or name it with DATA.VAL_SYNSETS"
    )


def _read_lines(path: Path) -> list[str]:
    lines = [line for line in read_lines(path) if line]
    if path.suffix == ".csv":
        try:
            rows = [row for row in csv.reader(lines) if len(row) >= 2 and row[1].split()]
        except csv.Error as error:
            raise DataError(f"{path}: cannot be read as comma-separated values: {error}") from None
        return [f"{row[0]} {row[1].split()[0]}" for row in rows if row[0] != "ImageId"]
    return lines


def _by_name(lines: list[str], files: Sequence[str]) -> dict[str, str] | None:
    """Return {file, and its name without ending: class} of lines of both; None where they are classes alone.

    Either may hold blanks: a line is cut behind the name of an image.
    """
    whole = set(files)
    known = whole | {Path(file).stem for file in files}
    found: dict[str, str] = {}
    for line in lines:
        cuts = [(Path(line[: blank.start()]).name, line[blank.end() :]) for blank in re.finditer(r"\s+", line)]
        of_image = [cut for cut in cuts if cut[0] in known]
        if not of_image and len(cuts) != 1:
            return None
        name, label = of_image[-1] if of_image else cuts[0]
        found[name] = label
        if name not in whole:
            # Its ending may be another than the image's.
            found.setdefault(Path(name).stem, label)
    # Without any image's name, two words can be a class.
    return found if known & found.keys() or any(Path(name).suffix for name in found) else None


def _wnids_of(numbers: Sequence[str], path: Path) -> list[str]:
    wnids = wnids_by_number(path.parent / META)
    for number in numbers:
        if not number.isdigit() or int(number) not in wnids:
            raise DataError(f"{path}: {number!r} is no class number of {path.parent / META}")
    return [wnids[int(number)] for number in numbers]


def _class_index(label: str, classes: Sequence[str], path: Path) -> int:
    if WNID.fullmatch(label) or label in classes:
        if label not in classes:
            raise DataError(f"{path}: class {label} is no class of the training set")
        return classes.index(label) if len(classes) < 50 else _index_of(tuple(classes))[label]
    if not label.isdigit() or not int(label) < len(classes):
        raise DataError(f"{path}: {label!r} is neither a class nor the number of one (0..)")
    return int(label)


_indices: dict[tuple[str, ...], dict[str, int]] = {}


def _index_of(classes: tuple[str, ...]) -> dict[str, int]:
    if classes not in _indices:
        _indices.clear()
        _indices[classes] = {name: position for position, name in enumerate(classes)}
    return _indices[classes]

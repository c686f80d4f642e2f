"""Folders of images and of label images, paired by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import DataError
from ...common.images import list_images
from ...common.reading import read_lines
from ...common.text import count, some
from .class_files import ClassList, read_class_list
from .form import form_of
from .sets import LabelledFiles

# Names of the two folders in data sets that people have; the first ones are those that messages name.
IMAGES = ("images", "img_dir", "imgs", "image", "img")
LABELS = ("labels", "masks", "annotations", "ann_dir", "label", "mask")
# Other names of a part, and lists of the class names below the root of a set.
PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
CLASS_LISTS = ("classes.txt", "labelmap.txt", "class_dict.csv", "_classes.csv")
LABEL_FILES = (".png", ".bmp", ".tif", ".tiff", ".gif")
DEFAULT_LIST = CLASS_LISTS[0]


@dataclass(frozen=True)
class Pair:
    """A folder of images and one of labels, which may be the same, and the images that are wanted."""

    images: Path
    labels: Path
    wanted: tuple[str, ...] | None = None
    list_file: Path | None = None


def open_folders(
    root: Path, split: str, data: Any, known: Sequence[str] = (), name: str = "", *, check: bool = True
) -> LabelledFiles:
    """Open images/<split> with labels/<split>, <split>/images with <split>/labels, <split> with both, or images and
    labels with the list of names <split>.txt.

    Args:
        data: DATA of the config.
        known: the classes where no file names them.
        check: whether each image must have its label file.

    Raises:
        DataError: a folder, a file or the list of classes is missing, or names do not pair up.
    """
    pair = find_pair(root, split)
    classes = find_classes(data.CLASSES, [root, pair.images], known)
    records, unused = pair_files(pair, data.LABEL_SUFFIX)
    if check:
        check_files(records)
    form = form_of(data, classes.names, classes.colours, classes.numbers)
    found = LabelledFiles(name or f"{root.name} {split}", form, records)
    found.unused = unused
    return found


def find_pair(root: Path, split: str) -> Pair:
    """Return the folders of a part.

    Raises:
        DataError: there are none.
    """
    pairs = list(_pairs(root, split))
    if pairs:
        return next(filter(_has_labels, pairs), pairs[0])
    images, list_file = root / IMAGES[0] / split, root / f"{split}.txt"
    for folder in (images, root / LABELS[0] / split):
        if not folder.is_dir():
            raise DataError(f"{folder}: the folder does not exist, and there is no list {list_file}")
    raise DataError(f"{images}: no folder of label images for it below {root}")


def has_pair(root: Path, split: str) -> bool:
    """Whether a folder holds a part as images and label images; it looks at names alone."""
    return any(map(_has_labels, _pairs(root, split)))


def _has_labels(pair: Pair) -> bool:
    return any(map(is_label, list_images(pair.labels)))


def _pairs(root: Path, split: str) -> Iterator[Pair]:
    """Yield the pairs of folders that may be a part of a set."""
    list_file = root / f"{split}.txt"
    if os.path.lexists(list_file):
        images, labels = (_first(root, names) for names in (IMAGES, LABELS))
        if images is not None and labels is not None:
            yield Pair(images, labels, tuple(line for line in read_lines(list_file) if line), list_file)
            return
    for part in PARTS.get(split, (split,)):
        for images in (root / name / part for name in IMAGES):
            labels = next((root / name / part for name in LABELS if (root / name / part).is_dir()), None)
            if images.is_dir() and labels is not None:
                yield Pair(images, labels)
        images, labels = (_first(root / part, names) for names in (IMAGES, LABELS))
        if images is not None and labels is not None:
            yield Pair(images, labels)
        elif (root / part).is_dir() and _masks_beside(root / part):
            yield Pair(root / part, root / part)


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _masks_beside(folder: Path) -> bool:
    """Whether a folder holds images and, of half of them at least, the labels: a.jpg with a_mask.png."""
    names = list_images(folder)
    stems = {os.path.splitext(name)[0] for name in names}
    masks = [name for name in names if is_label(name) and image_of(name, stems)]
    return 0 < len(names) - len(masks) <= 2 * len(masks)


def image_of(name: str, stems: Collection[str]) -> str | None:
    """Return the image's stem of which a file in the same folder is the mask, by a suffix such as _mask."""
    stem = os.path.splitext(name)[0]
    return next((stem[:place] for place in _cuts(stem) if stem[:place] in stems), None)


def is_label(name: str) -> bool:
    """Whether a file name may be a label image's."""
    return os.path.splitext(name)[1].lower() in LABEL_FILES


def find_classes(class_file: str, places: Sequence[Path], known: Sequence[str] = ()) -> ClassList:
    """Return the classes: of DATA.CLASSES, a file here or below the root, else of a list that lies with the data.

    Args:
        known: the classes where no file names them.

    Raises:
        DataError: none is there, or it is wrong.
    """
    if class_file:
        beside = places[0] / class_file
        return read_class_list(beside if not os.path.lexists(class_file) and beside.is_file() else Path(class_file))
    files = [place / name for place in places for name in CLASS_LISTS]
    found = next((file for file in files if os.path.lexists(file)), None)
    if found is None and known:
        return ClassList(list(known))
    return read_class_list(found or places[0] / DEFAULT_LIST)


def pair_files(pair: Pair, suffix: str = "") -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Return (image, label file) of each image that is wanted, and the label files of no image.

    Args:
        suffix: of the label files: a.jpg has the labels a<suffix>.png; "" for the same name, or the one suffix that
            all label files have.

    Raises:
        DataError: there is no image, or two have the same label file.
    """
    names = list_images(pair.images)
    labels = {}
    for name in list_images(pair.labels):
        if is_label(name):
            labels.setdefault(os.path.splitext(name)[0], pair.labels / name)
    if pair.images == pair.labels:
        names, suffix = _apart(names, suffix, pair.images)
    if not names:
        folders = sorted(path.name for path in pair.images.iterdir() if path.is_dir())
        hint = f"; what lies deeper, as in {folders[0]}/, is not read" if folders else ""
        raise DataError(f"{pair.images}: holds no images{hint}")
    found = {os.path.splitext(name)[0]: pair.images / name for name in names}
    twice = [name for name in names if found[os.path.splitext(name)[0]].name != name]
    if twice:
        other = found[os.path.splitext(twice[0])[0]].name
        raise DataError(f"{pair.images / twice[0]}: {other} beside it has the same label image; keep one of them")
    stems = list(found) if pair.wanted is None else _wanted(pair, found)
    suffix = suffix or common_suffix(set(stems), labels)
    records = [(found[stem], labels.get(stem + suffix, pair.labels / f"{stem}{suffix}.png")) for stem in stems]
    ends = {stem + suffix for stem in found}
    return records, [path for stem, path in labels.items() if stem not in ends and path.name not in names]


def _wanted(pair: Pair, found: Collection[str]) -> list[str]:
    """Return the stems that a list names; it may give the files, or go without their endings."""
    stems = []
    for name in pair.wanted or ():
        stem = name if name in found else os.path.splitext(name)[0]
        if stem not in found:
            raise DataError(f"{pair.list_file}: names {name!r}, of which {pair.images} has no image")
        stems.append(stem)
    return stems


def _apart(names: Sequence[str], suffix: str, folder: Path) -> tuple[list[str], str]:
    """Return the images of a folder that holds their labels too, and the suffix of these."""
    stems = {os.path.splitext(name)[0] for name in names}
    bases = {name: image_of(name, stems) for name in names if is_label(name)}
    found = {os.path.splitext(name)[0].removeprefix(base) for name, base in bases.items() if base is not None}
    if not suffix and len(found) > 1:
        raise DataError(f"{folder}: label files end in any of {some(sorted(found))}; DATA.LABEL_SUFFIX names one")
    suffix = suffix or next(iter(found), "")
    return [name for name in names if not (is_label(name) and os.path.splitext(name)[0].endswith(suffix))], suffix


def common_suffix(stems: Collection[str], labels: Collection[str]) -> str:
    """Return what label files have behind the name of their image, "" where names are equal or nothing fits."""
    if any(stem in labels for stem in stems):
        return ""
    # a_10_mask is the label of a_10, not of a_1.
    found = Counter(label[place:] for label in labels for place in _cuts(label) if label[:place] in stems)
    # Cityscapes has a file in colours, one of instances and one of labels for each image.
    return max(found, key=lambda end: (found[end], "label" in end or "mask" in end), default="")


def _cuts(stem: str) -> list[int]:
    """Return the places where a suffix may begin."""
    return [place for place, letter in enumerate(stem) if letter in "_-." and place]


def check_files(records: Sequence[tuple[Path, Path | None]]) -> None:
    """Raise DataError for the first image or label file that is not there."""
    # os.path takes names that are too long for a file too; Path.is_file raises on them.
    missing = [path for record in records for path in record if path is not None and not os.path.isfile(path)]
    if missing:
        kind = "label image" if missing[0] in {label for _, label in records} else "image"
        more = f" ({count(len(missing), 'file')} are missing in all)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}: the {kind} does not exist{more}")

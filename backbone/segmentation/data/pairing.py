"""Label files that belong to images, or to other label files, by their names."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...common.errors import DataError
from ...common.images import find_images
from .cityscapes import IDS, IMAGE_END, LABEL_IDS, numbers_of
from .class_files import ClassList
from .folders import LABEL_FILES, common_suffix, find_classes, is_label
from .form import form_of
from .sets import LabelledFiles

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def stem_below(path: Path, root: Path) -> str:
    """Return what a file is called below a folder, without its ending."""
    return path.relative_to(root).with_suffix("").as_posix().removesuffix(IMAGE_END)


def label_files(place: Path, left_out: Collection[Path] = ()) -> dict[str, Path]:
    """Return {stem: file} of the label files below a folder, or of the one file that `place` is.

    Args:
        left_out: resolved paths of files that are no labels.
    """
    if place.is_file():
        return {place.stem: place}
    files = [path for path in find_images(place) if is_label(path.name) and path.resolve() not in left_out]
    # Cityscapes has a file in colours and one of instances beside each.
    files = [path for path in files if path.stem.endswith(LABEL_IDS)] or files
    return {stem_below(path, place): path for path in files}


def match_stems(stems: Mapping[Key, str], labels: Mapping[str, Value], suffix: str = "") -> dict[Key, Value]:
    """Return the label (a file) of each stem that has one: of the same path, else of the same name in any folder.

    Args:
        suffix: what label files have behind that; "" for nothing, or for the one suffix that most have.
    """
    names = {key: Path(stem).name for key, stem in stems.items()}
    flat = {Path(stem).name: label for stem, label in labels.items()}
    for wanted, known in ((stems, labels), (names, flat)):
        end = suffix or common_suffix(set(wanted.values()), known)
        found = {key: known[stem + end] for key, stem in wanted.items() if stem + end in known}
        if found:
            return found
    return {}


def open_labels(place: Path, data: Any, named: Sequence[str], *, given: bool = False) -> LabelledFiles:
    """Open a folder of label images, or one, as a set whose images are they themselves.

    Args:
        data: DATA of a config, which says what the files hold.
        named: the classes, where no list lies with the files; with `given`, in any case.

    Raises:
        DataError: there are no label images, or the list of classes is wrong.
    """
    files = label_files(place)
    if not files:
        raise DataError(f"{place}: holds no label images ({', '.join(LABEL_FILES)})")
    places = [place, *list(place.absolute().parents)[:2]]
    named = list(IDS) if not given and all(stem.endswith(LABEL_IDS) for stem in files) else list(named)
    known = ClassList(named) if given else find_classes(data.CLASSES, places, named)
    form = form_of(data, known.names, known.colours, known.numbers or numbers_of(files.values(), known.names))
    return LabelledFiles(place.name, form, [(path, path) for path in files.values()])

"""What data sets of one's own have in common, whatever the task: parts, tables, folders of images, an order by seed."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import posixpath
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from .errors import DataError
from .images.find import list_folders
from .reading import read_text

# What the parts of a data set are called, as folders, lists, keys of data.yaml and in the names of files.
PARTS = {
    "train": ("train", "training", "trainval", "default"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# What the columns of images and classes are called, as `words_of` gives them.
IMAGE = ("image", "filename", "file", "path", "filepath", "imagepath", "imagename", "img", "imagefile")
LABEL = ("class", "label", "name", "classname", "category", "labelname", "categoryname", "object")
# Images that are looked for to find their folder.
TRIED = 20


def part_folder(path: Path, part: str) -> Path | None:
    """Return the folder of a part: train, or train2017."""
    if not path.is_dir():
        return None
    names = list_folders(path)
    for wanted in PARTS[part]:
        for name in names:
            if name.lower().rstrip("0123456789") == wanted:
                return path / name
    return None


def is_of_part(stem: str, part: str) -> bool:
    """Whether the name of a file says that it is of a part: instances_train2017, train_labels, _annotations.val."""
    words = "".join(letter if letter.isalpha() else " " for letter in stem.lower()).split()
    return any(word in PARTS[part] for word in words)


def files_of_kind(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a suffix in a folder, sorted; [] where there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    return [folder / name for name in sorted(names) if os.path.splitext(name)[1].lower() == suffix]


def leaves_folder(name: str) -> bool:
    """Whether a file name is absolute or climbs out of the folder it is relative to, on any system."""
    name = name.replace("\\", "/")
    return name.startswith("/") or name[1:2] == ":" or posixpath.normpath(name).split("/")[0] == ".."


def find_folder(source: Path, names: Sequence[str]) -> Path:
    """Return the folder that the file names are relative to: beside the annotations, as tools lay them out.

    Raises:
        DataError: none holds any of them.
    """
    stem = source.stem.removeprefix("instances_").removeprefix("lvis_v1_").removeprefix("_annotations.")
    near = [source.parent, source.parent / "images", source.parent / "data", source.parent / stem]
    above = source.parent.parent
    near += [above / stem, above / "images" / stem, above / "images", above, above / "JPEGImages", above / "data"]
    tried = [name for name in names if not leaves_folder(name)][:TRIED]
    if not tried:
        # What is wrong with the names is told by the checks.
        return source.parent
    for folder in near:
        if any(_is_there(folder, name) for name in tried):
            return folder
    looked = ", ".join(str(folder) for folder in near[:6])
    raise DataError(
        f"{source}: its image {tried[0]!r} is in none of {looked}, ...; give the folder with --train-images or "
        "--val-images (check_data and convert_data: --images)"
    )


def _is_there(folder: Path, name: str) -> bool:
    return os.path.isfile(folder / name.replace("\\", "/")) or os.path.isfile(folder / PurePosixPath(name).name)


def read_table(source: Path, wanted: str) -> list[tuple[int, list[str]]]:
    """Return the lines of a CSV file (`,`, `;` or tabs) that are not empty, with their numbers.

    Args:
        wanted: what its lines hold, for messages.

    Raises:
        DataError: no CSV, or empty.
    """
    text = read_text(source)
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, [field.strip() for field in fields]) for fields in reader if any(fields)]
    except csv.Error as error:
        raise DataError(f"{source}: no CSV: {error}") from None
    if not lines:
        raise DataError(f"{source}: is empty; write lines of {wanted}")
    return lines


def words_of(header: Sequence[str]) -> dict[str, int]:
    """Return {name of a column in small letters and digits alone: its place}; of equal names the first."""
    names = ["".join(letter for letter in name.lower() if letter.isalnum()) for name in header]
    return {name: index for index, name in reversed(list(enumerate(names)))}


def by_seed(names: Collection[str], seed: int) -> list[str]:
    """Return names in an order that depends on the seed and each name: names that are added later change little."""

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest()

    return sorted(names, key=rank)

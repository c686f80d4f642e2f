"""YOLO's data.yaml: the classes, and where the images of each part are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbone.common.errors import ConfigError, DataError
from backbone.common.own_data import PARTS
from backbone.common.reading import read_lines, read_text
from backbone.engine.config import parse_yaml

from .place import Place

NAMES = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt")
# How far above a label file its classes may stand: labels/train/a.txt has them in data.yaml, two folders up.
HEIGHT = 3


def is_description(path: Path) -> bool:
    """Whether a YAML file describes a data set of YOLO."""
    try:
        content = parse_yaml(read_text(path), str(path))
    except (ConfigError, DataError):
        return False
    return "names" in content and any(key in content for names in PARTS.values() for key in names)


def has_key(path: Path, part: str) -> bool:
    """Whether data.yaml describes a part, and it is there."""
    try:
        return any(entry.exists() for entry in entries_of(read_description(path), Place("yolo", path, part=part)))
    except DataError:
        return False


def find_names(source: Path) -> tuple[list[str], Path]:
    """Return the classes of a folder or list without data.yaml, and the file that has them.

    Raises:
        DataError: there is no such file.
    """
    first = source if source.is_dir() else source.parent
    folders = [first, *list(first.parents)[:HEIGHT]]
    for folder in folders:
        for base in (folder, folder / "labels"):
            for name in NAMES:
                if (base / name).is_file():
                    return [line for line in read_lines(base / name) if line], base / name
        for name in ("data.yaml", "data.yml", "dataset.yaml"):
            if (folder / name).is_file():
                return names_in(read_description(folder / name), folder / name), folder / name
    looked = f"data.yaml and {', '.join(NAMES)}"
    raise DataError(f"{source}: no names of the classes; looked for {looked} there and above; write them, one a line")


def read_description(path: Path) -> dict[str, Any]:
    """Return what data.yaml holds; raises DataError where it is no YAML mapping."""
    try:
        return parse_yaml(read_text(path), str(path))
    except ConfigError as error:
        raise DataError(str(error)) from None


def names_in(description: dict[str, Any], source: Path) -> list[str]:
    """Return the classes in their order; raises DataError where they are not told, or told twice in two ways."""
    names = description.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(f"{source}: names must be numbered from 0 to {len(names) - 1}")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
        raise DataError(f"{source}: names must be a list of the classes, such as [helmet, vest]")
    if "nc" in description and description["nc"] != len(names):
        raise DataError(f"{source}: nc is {description['nc']!r}, but names has {len(names)}; make them agree")
    if "kpt_shape" in description:
        raise DataError(f"{source}: describes key points (kpt_shape); give a set of boxes or polygons")
    return [str(name) for name in names]


def entries_of(description: dict[str, Any], place: Place) -> list[Path]:
    """Return the folders or lists of the part that is meant."""
    key = next((name for name in PARTS[place.part] if description.get(name)), None)
    if key is None:
        raise DataError(f"{place.source}: has no {PARTS[place.part][0]!r}; give the folder or list of its images there")
    values = description[key] if isinstance(description[key], list) else [description[key]]
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{place.source}: {key} must be a folder or a list of images, not {description[key]!r}")
    home = place.source.parent
    root = home / str(description.get("path") or "")
    entries = []
    for value in values:
        # Roboflow writes ../train/images and means train/images.
        inside = value
        while inside.startswith("../"):
            inside = inside[3:]
        near = [root / value, home / value, home / inside]
        entries.append(next((path for path in near if path.exists()), near[-1]))
    return entries

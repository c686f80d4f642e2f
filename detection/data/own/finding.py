"""What form a file or folder of annotations has, and which of its parts is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from backbone.common.errors import DataError
from backbone.common.images import is_image_name, list_images
from backbone.common.own_data import PARTS, files_of_kind, is_of_part, part_folder
from backbone.common.text import some

from .data_yaml import has_key, is_description
from .place import FORMS, YAML, Place

# JSON files that label tools lay beside an export.
OTHER_JSON = ("notes.json", "package.json", "results.json")
LISTS = "ImageSets/Main"


def find_place(path: str | Path, part: str = "train", images: str | Path | None = None) -> Place:
    """Return what lies at `path`: a file of annotations, a folder, or a folder with a folder for each part.

    Args:
        part: of a data set in several, which one is meant. Of a set without parts, all of it.
        images: the folder of the images, where it is not beside the annotations.

    Raises:
        DataError: nothing there, no known form, or several.
    """
    path = Path(path).expanduser()
    images = None if images is None else Path(images).expanduser()
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder of images")
    if os.path.isdir(path):
        found = list(_in_folder(path, part, images))
        if len({place.form for place in found}) > 1:
            shown = ", ".join(f"{place.title} ({place.source})" for place in found)
            raise DataError(f"{path}: holds more than one form of annotations: {shown}; name one file or folder of it")
        if len(found) > 1:
            raise DataError(
                f"{path}: any of {', '.join(str(place.source) for place in found)} may be meant; name one of them"
            )
        if not found:
            raise DataError(_nothing_known(path, part))
        return found[0]
    if not os.path.lexists(path):
        raise DataError(f"{path} does not exist; give a file of annotations or the folder of a data set")
    return _of_file(path, part, images)


def part_of_run(name: str) -> str:
    """Return the part that a set of a run stands for: "val" of custom_val."""
    return name.removeprefix("custom_")


def has_part(path: str | Path, part: str) -> bool:
    """Whether a data set has this part apart from the others, such as a folder valid/ or a list val.txt."""
    path = Path(path).expanduser()
    if path.suffix.lower() in YAML and os.path.isfile(path):
        return has_key(path, part)
    if not path.is_dir():
        return False
    if any(has_part(file, part) for file in _yaml_files(path)):
        return True
    if any((path / LISTS / f"{name}.txt").is_file() for name in PARTS[part]):
        return True
    if part_folder(path, part) or any(part_folder(path / name, part) for name in ("labels", "images")):
        return True
    files = [file for suffix in (".json", ".csv", ".tsv") for file in files_of_kind(path, suffix)]
    files += files_of_kind(path / "annotations", ".json")
    return any(is_of_part(file.stem, part) for file in files)


def _of_file(path: Path, part: str, images: Path | None) -> Place:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return Place("coco", path, images, part)
    if suffix in YAML:
        return Place("yolo", path, images, part)
    if suffix in (".csv", ".tsv"):
        return Place("csv", path, images, part)
    if suffix == ".txt":
        return Place("voc" if path.parent.name == "Main" else "yolo", path, images, part)
    if suffix == ".xml":
        raise DataError(
            f"{path}: is one XML file; give the folder of the XML files (CVAT: export as Pascal VOC or COCO)"
        )
    if suffix in (".zip", ".gz", ".tar", ".tgz", ".rar", ".7z"):
        raise DataError(f"{path}: is an archive; unpack it and give the folder")
    known = "a folder, .json (COCO, LVIS), .yaml or .txt (YOLO), .txt of ImageSets/Main (VOC) or .csv"
    raise DataError(f"{path}: no known form of annotations; give {known}")


def _in_folder(path: Path, part: str, images: Path | None) -> Iterator[Place]:
    """Yield what a folder holds, one of each form; where it has none itself, what the folder of the part holds."""
    found = [*_coco(path, part), *_voc(path, part), *_yolo(path, part), *_csv(path, part)]
    inside = part_folder(path, part)
    if not found and inside is None and part != "train" and part_folder(path, "train"):
        # Roboflow leaves out a part that has no image.
        inside = part_folder(path, "test") if part == "val" else None
    if not found and inside is not None:
        found = list(_in_folder(inside, part, images))
    for place in found:
        yield Place(place.form, place.source, images or place.images, part)


def _coco(path: Path, part: str) -> list[Place]:
    for folder in (path, path / "annotations"):
        files = [file for file in files_of_kind(folder, ".json") if file.name not in OTHER_JSON]
        # COCO's own folder has captions and key points of the same images.
        files = [file for file in files if file.name.startswith("instances_")] or files
        named = [file for file in files if is_of_part(file.stem, part)]
        others = [file for file in files if not any(is_of_part(file.stem, other) for other in PARTS)]
        if chosen := named or others or (files if len(files) == 1 else []):
            return [Place("coco", file) for file in chosen]
    return []


def _voc(path: Path, part: str) -> list[Place]:
    lists = path / LISTS
    if (path / "Annotations").is_dir() and lists.is_dir():
        # Without a list to test on, all that is annotated is trained on.
        wanted = PARTS[part] + (PARTS["test"] if part == "val" else ())
        for name in wanted:
            if (lists / f"{name}.txt").is_file():
                return [Place("voc", lists / f"{name}.txt")]
    for folder in (path / "Annotations", path / "annotations", path):
        if files_of_kind(folder, ".xml"):
            return [Place("voc", folder)]
    return []


def _yolo(path: Path, part: str) -> list[Place]:
    files = _yaml_files(path)
    if files:
        return [Place("yolo", file, part=part) for file in files]
    labels = path / "labels"
    if labels.is_dir():
        inside = part_folder(labels, part)
        images = path / "images"
        return [Place("yolo", part_folder(images, part) or images if inside else images)]
    if path.parent.name == "images" and (path.parents[1] / "labels" / path.name).is_dir():
        return [Place("yolo", path)]
    if (path / "obj.names").is_file():
        return [Place("yolo", path / f"{name}.txt") for name in PARTS[part] if (path / f"{name}.txt").is_file()][:1]
    stems = {os.path.splitext(name)[0] for name in list_images(path)}
    return [Place("yolo", path)] if any(file.stem in stems for file in files_of_kind(path, ".txt")) else []


def _csv(path: Path, part: str) -> list[Place]:
    files = [*files_of_kind(path, ".csv"), *files_of_kind(path, ".tsv")]
    named = [file for file in files if is_of_part(file.stem, part)]
    others = [file for file in files if not any(is_of_part(file.stem, other) for other in PARTS)]
    return [Place("csv", file) for file in named or others]


def _yaml_files(path: Path) -> list[Path]:
    """Return data.yaml, or the YAML files that describe a YOLO set."""
    files = [file for suffix in YAML for file in files_of_kind(path, suffix)]
    named = [file for file in files if file.stem in ("data", "dataset")]
    return named or [file for file in files if is_description(file)]


def _nothing_known(path: Path, part: str) -> str:
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries)
    pictures = sum(map(is_image_name, names))
    holds = some([name for name in names if not is_image_name(name)]) or ("images alone" if pictures else "nothing")
    looked = ", ".join(text for _, text in FORMS.values())
    return f"{path}: no annotations in a known form (for {part}); looked for {looked}; it holds {holds}"

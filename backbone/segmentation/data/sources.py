"""From the config to the training and the validation set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...common.class_names import VOC_CLASSES
from ...common.errors import ConfigError, DataError
from ...common.images import list_images
from ...common.mini_set import mini_set_root
from ...common.reading import read_lines
from ...common.text import nearest
from ...engine.roots import data_root
from ..evaluation import VOID
from .coco import BACKGROUND, open_coco
from .sets import LabelledFiles, SegmentationSet


def open_sets(
    config: Any, *, training: bool, classes: Sequence[str] = ()
) -> tuple[SegmentationSet | None, SegmentationSet]:
    """Return the training set (None for an evaluation) and the validation set, with the same classes.

    Args:
        classes: what the network under test was trained on; the validation set may lack some.

    Raises:
        DataError: they are not there, broken or empty, or the validation set has a class more.
        ConfigError: a training set without labels.
    """
    data = config.DATA
    test = _open(config, data.VAL, training=False, classes=classes)
    train = _open(config, data.TRAIN, training=True) if training else None
    if train is not None:
        test = test.renumbered(train.classes, "the training set")
    elif set(test.classes) < set(classes):
        test = test.renumbered(classes, "the network")
    if train is not None and not train.has_truth:
        raise ConfigError(f"DATA.TRAIN {data.TRAIN!r}: this set has no labels; they stay with its evaluation server")
    if train is not None and data.TRAIN_IMAGES:
        train = train.first(data.TRAIN_IMAGES)
    if data.VAL_IMAGES:
        test = test.first(data.VAL_IMAGES)
    for images in (test, train):
        if images is not None and not len(images):
            area = data.LEAST_AREA if images is train and data.NAME in ("coco", "mini") else 0
            hint = f" with {area} annotated pixels or more (DATA.LEAST_AREA)" if area else ""
            raise DataError(f"{images.name}: holds no images{hint}")
    return train, test


def _open(config: Any, split: str, *, training: bool, classes: Sequence[str] = ()) -> SegmentationSet:
    data = config.DATA
    least_area = data.LEAST_AREA if training else 0
    if data.NAME == "mini":
        root = mini_set_root()
        file = root / "annotations" / f"instances_{split}.json"
        return open_coco(f"mini {split}", file, root / split, least_area=least_area)
    root = data_root(config)
    if data.NAME == "coco":
        below = root / "coco" if (root / "coco").is_dir() else root
        file = below / "annotations" / f"instances_{split}.json"
        kinds = {"classes": VOC_CLASSES, "all_needed": training} if data.COCO_CLASSES == "voc" else {}
        return open_coco(f"coco {split}", file, below / split, least_area=least_area, **kinds)
    if data.NAME == "voc":
        return _open_voc(root, split, year=data.YEAR, labels=data.LABEL_FOLDER)
    return _open_folders(root, split, data.CLASSES, classes)


def _open_voc(root: Path, split: str, *, year: str, labels: str) -> LabelledFiles:
    """Open VOC<year>; the split `test` has no labels."""
    places = [root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}", root]
    folder = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if folder is None:
        raise DataError(f"{root}: holds no VOCdevkit/VOC{year}/JPEGImages; --data-root names the folder of VOCdevkit")
    list_file = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not os.path.lexists(list_file):
        known = sorted(path.stem for path in list_file.parent.glob("*.txt"))
        hint = nearest(split, known) if known else "; it is part of the official VOC archives"
        raise DataError(f"{list_file}: no such list of images{hint}")
    stems = [line.split()[0] for line in read_lines(list_file) if line]
    has_truth = split != "test"
    if has_truth and not (folder / labels).is_dir():
        raise DataError(f"{folder / labels}: the folder of label images does not exist (DATA.LABEL_FOLDER)")
    records = [
        (folder / "JPEGImages" / f"{stem}.jpg", folder / labels / f"{stem}.png" if has_truth else None)
        for stem in stems
    ]
    _check_files(records)
    return LabelledFiles(f"VOC{year} {split}", (BACKGROUND, *VOC_CLASSES), records, has_truth=has_truth)


def _open_folders(root: Path, split: str, class_file: str, known: Sequence[str]) -> LabelledFiles:
    """Open images/<split> and labels/<split>, or images and labels with the list of names <split>.txt.

    Args:
        known: the classes where no file names them.
    """
    file = Path(class_file) if class_file else root / "classes.txt"
    classes = list(known) if known and not class_file and not os.path.lexists(file) else _read_classes(file)
    images, labels, list_file = root / "images", root / "labels", root / f"{split}.txt"
    wanted = None
    if os.path.lexists(list_file):
        wanted = [line for line in read_lines(list_file) if line]
    else:
        images, labels = images / split, labels / split
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"{folder}: the folder does not exist, and there is no list {list_file}")
    files = [images / name for name in list_images(images)]
    if not files:
        deeper = next((path.name for path in sorted(images.iterdir()) if path.is_dir()), "")
        hint = f"; what lies deeper, as in {deeper}/, is not read" if deeper else ""
        raise DataError(f"{images}: holds no images{hint}")
    found = {path.stem: path for path in files}
    twice = [path for path in files if found[path.stem] != path]
    if twice:
        raise DataError(f"{twice[0]}: {found[twice[0].stem].name} beside it has the same label image; keep one of them")
    if wanted is not None:
        # A list may name the files, or go without their endings.
        wanted = [stem if stem in found else found.get(Path(stem).stem, Path(stem)).stem for stem in wanted]
    missing = [stem for stem in wanted or () if stem not in found]
    if missing:
        raise DataError(f"{list_file}: names {missing[0]!r}, of which {images} has no image")
    records = [(found[stem], labels / f"{stem}.png") for stem in (found if wanted is None else wanted)]
    _check_files(records)
    return LabelledFiles(f"{root.name} {split}", classes, records)


def _check_files(records: list[tuple[Path, Path | None]]) -> None:
    # os.path takes names that are too long for a file too; Path.is_file raises on them.
    missing = [path for record in records for path in record if path is not None and not os.path.isfile(path)]
    if missing:
        kind = "label image" if missing[0] in {label for _, label in records} else "image"
        more = f" ({len(missing)} files are missing in all)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}: the {kind} does not exist{more}")


def _read_classes(path: Path) -> list[str]:
    try:
        classes = [line for line in read_lines(path) if line]
    except DataError as error:
        raise DataError(f"{error}; give the class names, one a line (DATA.CLASSES)") from None
    if not 2 <= len(classes) <= VOID or len(set(classes)) != len(classes):
        raise DataError(f"{path}: must hold 2 to {VOID} different class names, one a line; background is one")
    return classes

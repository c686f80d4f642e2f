"""From the config to the training and the validation set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...common.class_names import VOC_CLASSES
from ...common.errors import ConfigError, DataError
from ...common.mini_set import mini_set_root
from ...engine.roots import data_root
from .cityscapes import open_cityscapes
from .coco import open_coco
from .folders import open_folders
from .own import hold_out, open_own
from .sets import SegmentationSet
from .voc import open_voc


def open_sets(
    config: Any, *, training: bool, classes: Sequence[str] = (), held_out: Sequence[str] | None = None
) -> tuple[SegmentationSet | None, SegmentationSet]:
    """Return the training set (None for an evaluation) and the validation set, with the same classes.

    Args:
        classes: what the network under test was trained on; the validation set may lack some.
        held_out: the images that DATA.SPLIT has held out before.

    Raises:
        DataError: they are not there, broken or empty, or the validation set has a class more.
        ConfigError: a training set without labels.
    """
    data = config.DATA
    train = _open(config, data.TRAIN, training=True) if training else None
    if train is not None and data.SPLIT:
        train, test = hold_out(train, data.SPLIT, config.SEED, held_out)
    elif data.SPLIT and data.NAME == "own":
        raise ConfigError("DATA.SPLIT: a test needs --val; only a training holds out images")
    else:
        test = _open(config, data.VAL, training=False, classes=classes if train is None else train.own_classes)
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
    if data.NAME == "own":
        part, images = ("train", data.TRAIN_FOLDER) if training else ("val", data.VAL_FOLDER)
        return open_own(Path(split), part, Path(images) if images else None, data, classes)
    root = data_root(config)
    if data.NAME == "coco":
        below = root / "coco" if (root / "coco").is_dir() else root
        file = below / "annotations" / f"instances_{split}.json"
        kinds = {"classes": VOC_CLASSES, "all_needed": training} if data.COCO_CLASSES == "voc" else {}
        return open_coco(f"coco {split}", file, below / split, least_area=least_area, **kinds)
    if data.NAME == "voc":
        return open_voc(root, split, data)
    if data.NAME == "cityscapes":
        return open_cityscapes(root, split, data)
    return open_folders(root, split, data, classes)

"""From the config to the training and the validation set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import ConfigError, DataError
from ...common.reading import read_lines
from ...engine.roots import data_root
from .cifar import SETS, open_cifar
from .folders import WNID, has_flat_images, open_class_folders, open_flat
from .own import hold_out, open_own
from .sets import ImagesInMemory, LabelledImages
from .shards import find_shards, open_shards

SYNTHETIC_IMAGES = 1024


def open_sets(
    config: Any, *, training: bool, classes: Sequence[str] = (), held_out: Sequence[str] | None = None
) -> tuple[LabelledImages | None, LabelledImages]:
    """Return the training set (None for an evaluation) and the validation set.

    Args:
        classes: what the network under test was trained on; the validation set may lack some.
        held_out: the images that DATA.SPLIT has held out before.

    Raises:
        DataError: they are not there, or broken, or the training set has one class alone.
    """
    if config.DATA.SYNTHETIC:
        images = synthetic_images(config)
        return (images if training else None), images.first(max(1, config.SOLVER.IMS_PER_BATCH))
    data = config.DATA
    divided = training and data.SPLIT > 0
    if data.NAME == "own":
        train, test = _open_own(config, training=training, trained=classes)
    elif data.NAME in SETS:
        root = data_root(config)
        train = open_cifar(root, "train", data.NAME) if training else None
        test = None if divided else open_cifar(root, "test", data.NAME)
    else:
        train, test = _open_folders(data_root(config), config, training=training, trained=classes)
    if divided:
        train, test = hold_out(train, data.SPLIT, config.SEED, held_out)
        held_out = test.names()
    if train is not None and len(train.classes) < 2:
        raise DataError(
            f"{train.name}: has one class alone, {train.classes[0]!r}; a classifier tells apart two or more"
        )
    if set(test.classes) < set(classes):
        test = test.renumbered(classes)
    if training and config.DATA.TRAIN_IMAGES:
        train = train.first(config.DATA.TRAIN_IMAGES)
    if config.DATA.VAL_IMAGES:
        test = test.first(config.DATA.VAL_IMAGES)
    if divided:
        test.held_out = held_out
    return train, test


def _open_own(
    config: Any, *, training: bool, trained: Sequence[str]
) -> tuple[LabelledImages | None, LabelledImages | None]:
    data = config.DATA
    classes = _class_list(None, data.CLASSES) or list(trained) or None
    if data.TRAIN and (training or classes is None):
        train = open_own(data.TRAIN, "train", classes, data.TRAIN_FOLDER)
        classes = train.classes
    elif training:
        raise ConfigError("a training on data of your own needs --train (DATA.TRAIN); --val is for --eval-only alone")
    if not data.VAL and not (training and data.SPLIT):
        raise ConfigError("a test on data of your own needs --val (DATA.VAL); in a training --split does too")
    test = open_own(data.VAL, "val", classes, data.VAL_FOLDER) if data.VAL else None
    return (train if training else None), test


def _open_folders(
    root: Path, config: Any, *, training: bool, trained: Sequence[str]
) -> tuple[LabelledImages | None, LabelledImages | None]:
    data = config.DATA
    name = data.NAME
    train = None
    classes = _class_list(root, data.CLASSES) or list(trained) or None
    shards = {split: find_shards(root, split) for split in (data.TRAIN, data.VAL)}
    if training or (classes is None and (shards[data.TRAIN] or (root / data.TRAIN).is_dir())):
        if shards[data.TRAIN]:
            train = open_shards(shards[data.TRAIN], f"{name} {data.TRAIN}", classes)
        else:
            train = open_class_folders(root, data.TRAIN, f"{name} {data.TRAIN}", classes)
        classes = train.classes
    if training and data.SPLIT:
        test = None
    elif shards[data.VAL]:
        test = open_shards(shards[data.VAL], f"{name} {data.VAL}", classes)
    elif has_flat_images(root, data.VAL):
        if classes is None:
            raise DataError(f"{root / data.VAL}: the classes' order is not known; name a file of wnids, DATA.CLASSES")
        test = open_flat(root, data.VAL, f"{name} {data.VAL}", classes, data.VAL_SYNSETS)
    elif training and root.is_dir() and not os.path.lexists(root / data.VAL):
        raise DataError(
            f"{root}: has no {data.VAL}/ to test on; add it, or DATA.SPLIT 0.1 holds out a tenth of the training images"
        )
    else:
        test = open_class_folders(root, data.VAL, f"{name} {data.VAL}", classes)
    return (train if training else None), test


def _class_list(root: Path | None, file: str) -> list[str] | None:
    """Return the classes that a file lists, one a line; by default `synsets.txt` of the root, if there is one."""
    if not file and (root is None or not os.path.lexists(root / "synsets.txt")):
        return None
    path = Path(file) if file else root / "synsets.txt"
    classes = [_class_of(line) for line in read_lines(path) if line]
    twice = next((name for place, name in enumerate(classes) if name in classes[:place]), None) if classes else ""
    if twice is not None:
        problem = f"lists {twice!r} twice" if twice else "lists no class"
        raise DataError(f"{path}: {problem}; write every class once, one a line (DATA.CLASSES)")
    return classes


def _class_of(line: str) -> str:
    """Return the class of a line: the whole of it, or a wnid with words behind it."""
    first = line.split()[0]
    return first if WNID.fullmatch(first) else line


def synthetic_images(config: Any) -> ImagesInMemory:
    """Return random images and labels, the same for the same seed: they time the device without any reading."""
    random = np.random.default_rng(config.SEED)
    size, kind = config.INPUT.TRAIN_SIZE, SETS.get(config.DATA.NAME)
    classes = config.MODEL.NUM_CLASSES or (len(kind.classes) if kind else 1000)
    channels = len(config.MODEL.PIXEL_MEAN)
    number = max(config.SOLVER.IMS_PER_BATCH, min(SYNTHETIC_IMAGES, 2**28 // (channels * size * size)))
    pixels = random.integers(0, 256, (number, size, size, channels), dtype=np.uint8)
    labels = random.integers(0, classes, number)
    return ImagesInMemory("synthetic", [str(label) for label in range(classes)], labels, pixels)

"""The sets of a config: located, checked, in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbone import ConfigError, DataError

from ..data.catalog import CUSTOM_SETS, Source, locate
from ..data.checks import Fault, check_coco, raise_on_errors, read_json
from ..data.mapper import Mapper, Resize
from ..data.sets import DetectionSet, build_set, join_sets
from ..evaluation import GroundTruth, load_ground_truth

# Faults of single boxes. Training can leave such a box out, so DATASETS.BAD_BOXES decides.
UNUSABLE_BOXES = {"nan-box", "negative-box", "empty-box", "box-outside"}


@dataclass(frozen=True)
class TestSet:
    """A set to evaluate on, with its ground truth for each kind of evaluation ("bbox", "segm")."""

    images: DetectionSet
    ground_truth: dict[str, GroundTruth]


@dataclass(frozen=True)
class Sets:
    """What a run trains and evaluates on."""

    train: DetectionSet | None
    test: list[TestSet]

    @property
    def any(self) -> DetectionSet:
        """The set that says what the classes are: the training set, else the first test set."""
        return self.train if self.train is not None else self.test[0].images

    @property
    def classes(self) -> list[str]:
        return self.any.classes


def source_of(name: str, config: CfgNode) -> Source:
    """Return where a set lies; custom sets are in the config itself."""
    if name not in CUSTOM_SETS:
        return locate(name, config.DATASETS.ROOT or None)
    split = "TRAIN" if name == "custom_train" else "VAL"
    json_file, folder = (config.DATASETS.CUSTOM[f"{split}_{part}"] for part in ("JSON", "IMAGES"))
    if not json_file or not folder:
        flag = split.lower()
        raise ConfigError(f"the set {name} needs --{flag}-json and --{flag}-images")
    return Source(name, Path(json_file), Path(folder))


def load_sets(config: CfgNode, *, training: bool) -> Sets:
    """Read and check the sets of DATASETS.TRAIN (when training) and DATASETS.TEST.

    Raises:
        DataError: a file is missing or broken, or the annotations have faults; one line names the first.
    """
    masks = config.MODEL.MASK_ON
    train = None
    if training:
        if not config.DATASETS.TRAIN:
            raise ConfigError("DATASETS.TRAIN names no set")
        train = join_sets([_load(source_of(name, config), config, masks=masks)[0] for name in config.DATASETS.TRAIN])
        if not len(train.trainable()):
            raise DataError(f"{train.name}: no image has an object to learn from")
    test = [_load_test(source_of(name, config), config) for name in config.DATASETS.TEST]
    sets = Sets(train, test)
    if not training and not test:
        raise ConfigError("DATASETS.TEST names no set to evaluate on")
    for other in test:
        if other.images.classes != sets.classes:
            raise DataError(
                f"{other.images.name} and {sets.any.name} have different categories "
                f"({len(other.images.classes)} and {len(sets.classes)}): "
                f"{_first_difference(other.images.classes, sets.classes)}"
            )
    return sets


def _first_difference(a: list[str], b: list[str]) -> str:
    for left, right in zip(a, b):
        if left != right:
            return f"{left!r} stands where {right!r} does"
    return f"{(a + b)[min(len(a), len(b))]!r} is in one only"


def _load(source: Source, config: CfgNode, *, masks: bool) -> tuple[DetectionSet, dict[str, Any]]:
    if not source.image_folder.is_dir():
        raise DataError(f"{source.name}: the image folder {source.image_folder} does not exist")
    data, faults = read_json(source.json_file)
    if data is not None:
        faults = [*faults, *check_coco(data, source.image_folder, source=str(source.json_file))]
    raise_on_errors(_judge(faults, source, config), str(source.json_file), images=source.image_folder)
    return build_set(data, name=source.name, folder=source.image_folder, masks=masks), data


def _load_test(source: Source, config: CfgNode) -> TestSet:
    """Load a set to evaluate on. Its ground truth is read now, so that no fault comes up after the training."""
    images, data = _load(source, config, masks=False)
    # Of the boxes that DATASETS.BAD_BOXES lets pass, these have no figures; one without area counts as not found.
    kept = [annotation for annotation in data["annotations"] if _can_be_evaluated(annotation["bbox"])]
    data = data if len(kept) == len(data["annotations"]) else {**data, "annotations": kept}
    try:
        kinds = ("bbox", "segm") if config.MODEL.MASK_ON else ("bbox",)
        return TestSet(images, {kind: load_ground_truth(data, kind) for kind in kinds})
    except DataError as error:
        raise DataError(f"{source.json_file}: {error}") from None


def _can_be_evaluated(box: list[float]) -> bool:
    return all(map(math.isfinite, box)) and box[2] >= 0 and box[3] >= 0


def _judge(faults: list[Fault], source: Source, config: CfgNode) -> list[Fault]:
    """Apply DATASETS.BAD_BOXES: take the faults of single boxes out, or make errors of them."""
    policy = config.DATASETS.BAD_BOXES
    if policy == "skip" or (policy == "auto" and source.official):
        return [fault for fault in faults if fault.kind not in UNUSABLE_BOXES]
    return [replace(fault, severity="error") if fault.kind in UNUSABLE_BOXES else fault for fault in faults]


def training_mapper(images: DetectionSet, config: CfgNode) -> Mapper:
    """Return the mapper of training samples."""
    inputs = config.INPUT
    return Mapper(
        images,
        resize=Resize(tuple(inputs.MIN_SIZE_TRAIN), inputs.MAX_SIZE_TRAIN, inputs.MIN_SIZE_TRAIN_SAMPLING),
        channel_order=inputs.FORMAT,
        training=True,
        flip=inputs.RANDOM_FLIP,
        mask_format=inputs.MASK_FORMAT,
    )


def test_mapper(images: DetectionSet, config: CfgNode) -> Mapper:
    """Return the mapper of test images."""
    resize = Resize((config.INPUT.MIN_SIZE_TEST,), config.INPUT.MAX_SIZE_TEST)
    return Mapper(images, resize=resize, channel_order=config.INPUT.FORMAT, training=False)

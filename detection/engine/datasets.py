"""The sets of a config: located, checked, in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from backbone import ConfigError, DataError
from backbone.common.waiting import say_reading
from backbone.engine import distributed
from backbone.engine.defaults import color_jitter

from ..coco_json.masks import drawn
from ..data.augment import augmentation_of
from ..data.cache import Wanted, load_cached
from ..data.catalog import CUSTOM_SETS, Source, known_sets, locate, parts_of
from ..data.checks import UNUSABLE_BOXES, Fault, check_coco, raise_on_errors, read_json, warnings_line
from ..data.mapper import Mapper, Resize
from ..data.own import choose_images, find_place, keep_images, part_of_run, read_place
from ..data.proposals import Proposals
from ..data.registered import is_registered, read_registered
from ..data.samples import repeat_factors
from ..data.sets import DetectionSet, build_set, first_difference, join_sets, real_categories
from ..data.transforms import Torchvision, Transform
from ..data.voc import VocObjects, read_split
from ..data.voc.build import build_voc_set
from ..evaluation import GroundTruth, load_ground_truth


@dataclass(frozen=True)
class TestSet:
    """A set to evaluate on.

    Attributes:
        kinds: of evaluation that a set in COCO form has ground truth for: "bbox", "segm", "keypoints".
        ground_truth: for each of them, in the main process; in the others {}.
        source: the JSON file, or the list of a VOC split.
        voc: of a VOC set, its objects.
        targets: the images with the objects that a loss is taken of, where they are others than those of `images`.
    """

    images: DetectionSet
    source: Path
    kinds: tuple[str, ...] = ()
    ground_truth: dict[str, GroundTruth] = field(default_factory=dict)
    voc: VocObjects | None = None
    targets: DetectionSet | None = None

    @property
    def labelled(self) -> DetectionSet:
        """The images with what a loss is taken of."""
        return self.targets or self.images

    @property
    def has_truth(self) -> bool:
        return bool(self.kinds) or (self.voc is not None and self.voc.split.annotated)


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
    """Return where a set lies; custom sets are in the config itself. Names of ours win over the DatasetCatalog's."""
    if name not in known_sets() and is_registered(name):
        return Source(name, Path(name), Path(), registered=True)
    if name not in CUSTOM_SETS:
        return locate(name, config.DATASETS.ROOT or None)
    custom = config.DATASETS.CUSTOM
    part = "train" if custom.SPLIT else part_of_run(name)
    path, json_file, folder = (custom[f"{part.upper()}{end}"] for end in ("", "_JSON", "_IMAGES"))
    if path:
        place = find_place(path, part, folder or None)
        return Source(name, place.source, place.images or place.source, own=place)
    if not json_file or not folder:
        raise ConfigError(f"the set {name} needs --{part} (or --{part}-json and --{part}-images)")
    return Source(name, Path(json_file), Path(folder))


def load_sets(
    config: CfgNode, *, training: bool, classes: Sequence[str] | None = None, held_out: Sequence[str] | None = None
) -> Sets:
    """Read and check the sets of DATASETS.TRAIN (when training) and DATASETS.TEST.

    Args:
        classes: in their order, of sets of one's own that name the class at each object; None for DATASETS.CUSTOM.
            CLASSES or those that the training set has.
        held_out: file names of the images that DATASETS.CUSTOM.SPLIT holds out; None to choose them.

    Raises:
        DataError: a file is missing or broken, or the annotations have faults; one line names the first.
    """
    masks = config.MODEL.MASK_ON
    classes = classes or list(config.DATASETS.CUSTOM.CLASSES) or None
    train, known = None, {}
    if training:
        if not config.DATASETS.TRAIN:
            raise ConfigError("DATASETS.TRAIN names no set")
        own = {"classes": classes, "held_out": held_out, "known": known}
        names = [part for name in config.DATASETS.TRAIN for part in parts_of(name)]
        sources = [source_of(name, config) for name in names]
        train = _cached(
            sources,
            config,
            masks,
            lambda: join_sets([_load_train(source, config, masks=masks, **own) for source in sources]),
        )
        if not len(train.trainable()):
            raise DataError(f"{train.name}: no image has an object to learn from")
        if train.keypoints is not None and not len(used_for_training(train, config)):
            raise DataError(f"{train.name}: no image has labelled keypoints to learn from")
    own = {"classes": train.classes if train else classes, "held_out": held_out, "known": known}
    test = [_load_test(source_of(name, config), config, **own) for name in config.DATASETS.TEST]
    sets = Sets(train, test)
    if not training and not test:
        raise ConfigError("DATASETS.TEST names no set to evaluate on")
    for other in test:
        if other.images.keypoint_names != sets.any.keypoint_names:
            raise DataError(f"{other.images.name} and {sets.any.name} have different keypoints")
        if other.images.classes != sets.classes:
            raise DataError(
                f"{other.images.name} and {sets.any.name} have different categories "
                f"({len(other.images.classes)} and {len(sets.classes)}): "
                f"{first_difference(other.images.classes, sets.classes)}"
            )
    return sets


def _cached(sources: list[Source], config: CfgNode, masks: bool, build: Callable[[], DetectionSet]) -> DetectionSet:
    """Return what `build` makes of the sources, from DATASETS.CACHE where all of them are whole files in COCO form."""
    if config.DATASETS.CUSTOM.SPLIT or any(s.voc is not None or s.own is not None or s.registered for s in sources):
        return build()
    # All that decides what is read from the files.
    settings = [
        masks,
        config.MODEL.KEYPOINT_ON,
        config.DATASETS.BAD_BOXES,
        *([source.name, source.official] for source in sources),
    ]
    files, folders = [source.json_file for source in sources], [source.image_folder for source in sources]
    return load_cached(Wanted(files, folders, settings), config.DATASETS.CACHE, build)


def _load_train(source: Source, config: CfgNode, *, masks: bool, **own: Any) -> DetectionSet:
    if source.voc is None:
        return _load(source, config, masks=masks, **own)[0]
    if not source.voc.annotated:
        raise DataError(f"{source.name} has no annotations to train on; take it out of DATASETS.TRAIN")
    return build_voc_set(_read_voc(source, config), name=source.name, difficult=config.DATASETS.VOC_DIFFICULT)


def _read_voc(source: Source, config: CfgNode) -> VocObjects:
    for key, what in (("MASK_ON", "masks"), ("KEYPOINT_ON", "keypoints")):
        if config.MODEL[key]:
            whose = f"the detection sets of {source.voc.title}"
            raise ConfigError(f"{source.name}: {whose} have no {what}; set MODEL.{key} False")
    return read_split(source.voc, refuse_boxes=config.DATASETS.BAD_BOXES == "refuse")


# What was read and checked: data in COCO's form, its faults, the image folder, and whether it lists images alone.
Content = tuple[dict[str, Any], list[Fault], Path, bool]


def _read(source: Source, config: CfgNode, *, unlabelled: bool, classes: Sequence[str] | None) -> Content:
    if distributed.is_main():
        say_reading(source.json_file)
    if source.own is not None:
        own = read_place(source.own, classes)
        data, faults, folder = own.data, own.faults, own.folder
    elif source.registered:
        faults, (data, folder) = [], read_registered(source.name)
    else:
        folder = source.image_folder
        if not folder.is_dir():
            raise DataError(f"{source.name}: the image folder {folder} does not exist")
        data, faults = read_json(source.json_file)
    lists_images_alone = unlabelled and isinstance(data, dict) and "annotations" not in data
    if lists_images_alone:
        data = {**data, "annotations": []}
    if data is not None:
        faults = [*faults, *check_coco(data, folder, source=str(source.json_file))]
    faults = _judge(faults, source, config)
    raise_on_errors(faults, str(source.json_file), flags=source.flags)
    return data, faults, folder, lists_images_alone


def _load(
    source: Source,
    config: CfgNode,
    *,
    masks: bool,
    unlabelled: bool = False,
    classes: Sequence[str] | None = None,
    held_out: Sequence[str] | None = None,
    known: dict[Path, Content],
) -> tuple[DetectionSet, dict[str, Any]]:
    """Read a set in COCO's form, or of one's own in any; with `unlabelled`, a file without annotations (as test-dev's)
    has None for them.

    Args:
        known: what DATASETS.CUSTOM.SPLIT divides, by its file: read once for both sides.
    """
    is_divided = bool(config.DATASETS.CUSTOM.SPLIT) and source.name in CUSTOM_SETS
    content = known.get(source.json_file) or _read(source, config, unlabelled=unlabelled, classes=classes)
    if is_divided:
        known[source.json_file] = content
    data, faults, folder, lists_images_alone = content
    difficult = [record for record in data["annotations"] if record.get("difficult")] if source.own else []
    for record in difficult:
        record["iscrowd"] = int(not config.DATASETS.VOC_DIFFICULT or unlabelled)
    if is_divided:
        names = [record["file_name"] for record in data["images"]]
        chosen = held_out or choose_images(names, config.DATASETS.CUSTOM.SPLIT, config.SEED)
        data = keep_images(data, set(chosen), held_out=source.name == "custom_val")
    if masks and data["annotations"] and not any(drawn(record.get("segmentation")) for record in data["annotations"]):
        raise DataError(
            f"{source.json_file}: no object has a mask (segmentation); add masks, or set MODEL.MASK_ON False"
        )
    keypoints = config.MODEL.KEYPOINT_ON and not lists_images_alone
    images = build_set(data, name=source.name, folder=folder, masks=masks, keypoints=keypoints)
    images.form = source.own.title if source.own else ""
    text = warnings_line(faults, source.flags)
    images.warnings = (f"{source.name}: {text}",) if text else ()
    if len(images.classes) < len(data["categories"]):
        root = next(category for category in data["categories"] if category["name"] not in images.classes)
        images.warnings += (f"{source.name}: {root['name']!r}, the root of the other categories, is no class",)
        data = {**data, "categories": real_categories(data)}
    return images, {**data, "annotations": None} if lists_images_alone else data


def _load_test(source: Source, config: CfgNode, **own: Any) -> TestSet:
    """Load a set to evaluate on; a collective call. The main process reads its ground truth now, so that no fault comes
    up after the training."""
    if source.voc is not None:
        objects = _read_voc(source, config)
        with_loss = config.TEST.LOSS and source.voc.annotated
        targets = build_voc_set(objects, name=source.name, difficult=False) if with_loss else None
        images = build_voc_set(objects, name=source.name, difficult=True)
        return TestSet(images, source.json_file, voc=objects, targets=targets)
    # Evaluation has the masks from the file itself.
    masks = config.MODEL.MASK_ON and config.TEST.LOSS
    read: list[dict[str, Any]] = []

    def build() -> DetectionSet:
        images, data = _load(source, config, masks=masks, unlabelled=True, **own)
        read.append(data)
        return images

    images = _cached([source], config, masks, build)
    truth: dict[str, GroundTruth] = {}

    def read_truth() -> tuple[str, ...]:
        truth.update(_truth_of(read[0] if read else read_json(source.json_file)[0], source, config))
        return tuple(truth)

    kinds = distributed.made_by_main(read_truth)
    return TestSet(images, source.json_file, kinds, truth)


def _truth_of(data: dict[str, Any], source: Source, config: CfgNode) -> dict[str, GroundTruth]:
    """Return the ground truth of a checked file for each kind of evaluation; {} where it has no annotations."""
    if data.get("annotations") is None:
        return {}
    # Of the boxes that DATASETS.BAD_BOXES lets pass, these have no figures; one without area counts as not found.
    kept = [annotation for annotation in data["annotations"] if _can_be_evaluated(annotation["bbox"])]
    data = {**data, "categories": real_categories(data), "annotations": kept}
    try:
        switches = {"bbox": True, "segm": config.MODEL.MASK_ON, "keypoints": config.MODEL.KEYPOINT_ON}
        sigmas = config.TEST.KEYPOINT_OKS_SIGMAS
        return {kind: load_ground_truth(data, kind, sigmas) for kind, on in switches.items() if on}
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


def used_for_training(images: DetectionSet, config: CfgNode) -> np.ndarray:
    """Return the indices of the images that the config trains on."""
    used = images.trainable() if config.DATALOADER.FILTER_EMPTY_ANNOTATIONS else np.arange(len(images))
    if images.keypoints is None:
        return used
    return np.intersect1d(used, images.with_keypoints(config.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE))


def repeats_of(images: DetectionSet, config: CfgNode) -> np.ndarray | None:
    """Return how often each image of `used_for_training` comes in an epoch; None where each comes once."""
    loader = config.DATALOADER
    if loader.SAMPLER_TRAIN != "RepeatFactorTrainingSampler":
        return None
    form = {"sqrt": loader.REPEAT_SQRT} if "REPEAT_SQRT" in loader else {}
    return repeat_factors(images, used_for_training(images, config), loader.REPEAT_THRESHOLD, **form)


def training_mapper(
    images: DetectionSet, config: CfgNode, proposals: Proposals | None = None, transforms: Sequence[Transform] = ()
) -> Mapper:
    """Return the mapper of training samples.

    Args:
        transforms: of this run, beside those of the config and those that modules have registered.
    """
    inputs = config.INPUT
    jitter = color_jitter(inputs)
    own = [Torchvision(jitter, inputs.FORMAT, image_alone=True)] if jitter else []
    return Mapper(
        images,
        resize=Resize(
            tuple(inputs.MIN_SIZE_TRAIN), inputs.MAX_SIZE_TRAIN, inputs.MIN_SIZE_TRAIN_SAMPLING, inputs.FLOAT_RESIZE
        ),
        channel_order=inputs.FORMAT,
        channels=len(config.MODEL.PIXEL_MEAN),
        flip=inputs.RANDOM_FLIP,
        mask_format=inputs.MASK_FORMAT,
        proposals=proposals,
        augmentation=augmentation_of(config),
        others=used_for_training(images, config),
        transforms=[*own, *transforms],
    )

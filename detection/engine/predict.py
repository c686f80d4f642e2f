"""A trained detector on images: pictures and COCO results."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import nn
from tqdm import tqdm

from backbone import DataError, WeightsError
from backbone.common.files import write_json, write_whole
from backbone.common.images import find_images as images_below
from backbone.common.images import read_image, resize_image
from backbone.engine import checkpoint
from backbone.engine.config import merge, merge_overrides, parse_yaml
from backbone.engine.record import LOGGER
from backbone.engine.solver import check_device

from ..config import check, default_config
from ..data.mapper import Resize, to_tensor
from ..visualization import draw_objects
from .inference import detect, to_coco
from .listed import read_ids
from .model import build
from .testing import add_views, as_tested, check_ensemble
from .weight_keys import WEIGHT_KEYS
from .weights import load_detector

log = logging.getLogger(LOGGER)
PICTURE = "_detections.jpg"


@dataclass(frozen=True)
class Detector:
    """A trained detector with all that belongs to it.

    Attributes:
        classes: names by class index; category_ids: the ids that predictions carry.
        tested: the model as its config tests it: itself, or with the methods of Appendix B around it.
    """

    model: nn.Module
    config: CfgNode
    classes: list[str]
    category_ids: list[int]
    tested: nn.Module

    def __call__(self, image: np.ndarray) -> Instances:
        """Detect on a BGR uint8 image (H, W, 3); boxes come in its pixels."""
        height, width = image.shape[:2]
        resize = Resize((self.config.INPUT.MIN_SIZE_TEST,), self.config.INPUT.MAX_SIZE_TEST)
        resized = resize_image(image, *resize.target(width, height, resize.draw(None)))
        sample = {"image": to_tensor(resized, self.config.INPUT.FORMAT), "height": height, "width": width}
        return detect(self.tested, [add_views(sample, lambda: image, self.config)])[0]


def load_trained_detector(path: str | Path, device: str | None = None, overrides: Sequence[object] = ()) -> Detector:
    """Build the detector that a checkpoint of this project holds; its config is in it.

    Args:
        device: "cuda" or "cpu"; by default what MODEL.DEVICE among the overrides says, else a GPU if there is one.
        overrides: KEY, VALUE, ... of the config's TEST section and its like; they are checked as for a training.

    Raises:
        WeightsError: no such checkpoint, or it carries no config and classes.
        ConfigError: its config is none of ours, or an override is wrong or not what the weights were trained with.
        RunError: the device is not there.
    """
    content = checkpoint.load(path)
    metadata = content.get("metadata", {})
    if not isinstance(content.get("config"), str) or not metadata.get("classes"):
        raise WeightsError(f"{path}: holds weights alone; predict needs a checkpoint of tools/train_net.py")
    config = default_config()
    merge(config, parse_yaml(content["config"], f"{path}, its config"), str(path))
    names, ids = list(metadata["classes"]), list(metadata.get("category_ids", []))
    if not len(names) == len(ids) == config.MODEL.ROI_HEADS.NUM_CLASSES:
        raise WeightsError(f"{path}: names {len(names)} classes, its config has {config.MODEL.ROI_HEADS.NUM_CLASSES}")
    trained = config.clone()
    config.MODEL.DEVICE = default_config().MODEL.DEVICE
    given = set(merge_overrides(config, overrides))
    if device is not None:
        config.MODEL.DEVICE = device
    check(config, trained, given, "command line")
    WEIGHT_KEYS.adopt(config, WEIGHT_KEYS.of_checkpoint(content, str(path)), str(path), given)
    check_device(config.MODEL.DEVICE)
    check_ensemble(config)
    config.freeze()
    model = build(config)
    load_detector(model, str(path))
    model.eval()
    return Detector(model, config, names, ids, as_tested(model, config, names))


def find_images(pattern: str, output: Path) -> list[Path]:
    """Return the image files that `pattern` names: a file, a folder (searched through) or a glob, in order.

    Pictures that an earlier call has put into `output` are left out.

    Raises:
        DataError: there are none.
    """
    path = Path(pattern)
    if os.path.isdir(path):
        files = images_below(path)
    elif os.path.isfile(path):
        files = [path]
    else:
        files = [Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
    if not os.path.isfile(path):
        output = output.resolve()
        files = [f for f in files if not (f.name.endswith(PICTURE) and f.resolve().is_relative_to(output))]
    if not files:
        raise DataError(f"--input {pattern!r}: no such image, folder with images, or pattern that finds any")
    return sorted(files)


def image_ids(files: list[Path]) -> list[int]:
    """Return COCO image ids: the numbers that the files are named by, as COCO's are, else 1, 2, 3, ..."""
    numbers = [int(file.stem) if file.stem.isdecimal() else None for file in files]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return numbers
    return list(range(1, len(files) + 1))


def picture_names(files: list[Path], root: Path) -> list[Path]:
    """Return each file's picture below the output folder: its own name, with the suffix only where two would be one."""
    names = [file.relative_to(root) for file in files]
    often = Counter(name.with_suffix("") for name in names)
    return [name.with_name((name.stem if often[name.with_suffix("")] == 1 else name.name) + PICTURE) for name in names]


@dataclass
class Outcome:
    """What `predict` did: images with detections written, and the files it had to skip with the reason."""

    images: int
    detections: int
    skipped: dict[str, str]


def predict(detector: Detector, pattern: str, output: Path, *, least_score: float, ids: Path | None = None) -> Outcome:
    """Detect on all images of `pattern`; write pictures, predictions.json and images.json into `output`.

    predictions.json is in COCO's results form, with every detection down to the model's own threshold; images.json has
    the images and categories that its ids mean. `least_score` holds for the pictures.

    Args:
        ids: a JSON in COCO form, whose image and category ids are taken; files that it does not list are left out.

    Raises:
        DataError: no image was found, or none could be read; or as in `read_ids`.
    """
    files = find_images(pattern, output)
    root = Path(pattern) if os.path.isdir(pattern) else Path(os.path.commonpath([file.parent for file in files]))
    records: list[dict[str, Any]] = []
    images, skipped = [], {}
    numbers, category_ids = image_ids(files), detector.category_ids
    if ids is not None:
        listed = read_ids(ids, files, root, detector.classes, detector.category_ids)
        files, numbers, category_ids = listed.files, listed.ids, listed.category_ids
        if listed.note:
            log.warning(listed.note)
    rows = zip(files, numbers, picture_names(files, root))
    for file, image_id, name in tqdm(rows, total=len(files), unit="img", disable=None if len(files) > 1 else True):
        try:
            image = read_image(file)
        except DataError as error:
            skipped[str(file)] = str(error)
            log.warning("skipped: %s", error)
            continue
        instances = detector(image)
        records += to_coco(instances, image_id, category_ids)
        height, width = image.shape[:2]
        images.append({"id": image_id, "file_name": str(file.relative_to(root)), "width": width, "height": height})
        picture = draw(image, instances[instances.scores >= least_score], detector.classes)
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        write_whole(output / name, lambda temporary, encoded=encoded: temporary.write_bytes(encoded))
    if not images:
        raise DataError(f"none of the {len(files)} files of --input could be read; {next(iter(skipped.values()))}")
    write_json(output / "predictions.json", records)
    categories = [{"id": id_, "name": name} for id_, name in zip(category_ids, detector.classes)]
    write_json(output / "images.json", {"images": images, "categories": categories})
    return Outcome(len(images), len(records), skipped)


def draw(image: np.ndarray, instances: Instances, classes: list[str]) -> np.ndarray:
    """Return the BGR image with boxes, and masks where there are any, drawn on it."""
    masks = instances.pred_masks.numpy() if instances.has("pred_masks") else None
    boxes = instances.pred_boxes.tensor.numpy()
    labels, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    return draw_objects(image, boxes, labels, classes, scores=scores, masks=masks)

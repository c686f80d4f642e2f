"""A trained detector with all that belongs to it, from its checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import nn

from backbone import ConfigError, DataError, WeightsError
from backbone.common.images import picture_of
from backbone.common.images.given import Given, is_several, pixels_of
from backbone.common.text import some
from backbone.engine import checkpoint, distributed
from backbone.engine.config import get, merge, merge_overrides, parse_yaml, put
from backbone.engine.image_progress import ImageProgress
from backbone.engine.kinds import DETECTION, refuse_others
from backbone.engine.loading import resolve_workers
from backbone.engine.record import LOGGER
from backbone.engine.solver import check_device
from backbone.engine.starting_weights import StartingWeights

from ..config import check, default_config, load_config
from ..config.names import classes_key
from ..modeling.build import build
from ..weights.detectron2_files import named_classes, number_of_classes
from ..weights.foreign import ForeignDetector
from ..weights.keys import WEIGHT_KEYS
from ..weights.load import load_detector, open_starting_weights
from ..weights.projects import read_known
from .detections import Detections
from .fast import state_of
from .inputs import list_inputs
from .items import Item, items_of, pixels_of_item
from .methods import as_tested, check_ensemble
from .pipeline import batch_size_of, detect_in_batches, pinned, run_pipeline
from .run import detect
from .tiles import OVERLAP, Tiling, with_tiles
from .transform import TestTransform

log = logging.getLogger(LOGGER)
NO_CONFIG = "no config of detectron2's model zoo has such a detector"


@dataclass
class Detector:
    """A trained detector with all that belongs to it.

    Attributes:
        classes: names by class index; category_ids: the ids that predictions carry.
    """

    model: nn.Module
    config: CfgNode
    classes: list[str]
    category_ids: list[int]
    # What `tested` was made from, and itself.
    _tested: tuple[list, nn.Module] | None = field(default=None, init=False, repr=False)

    @property
    def tested(self) -> nn.Module:
        """The model as its config tests it: see `as_tested`. Made again when the model has changed, see `state_of`."""
        state = state_of(self.model)
        if self._tested is None or self._tested[0] != state:
            # The former copy goes before the next one comes.
            self._tested = None
            self._tested = (state, as_tested(self.model, self.config, self.classes))
        return self._tested[1]

    def __call__(
        self,
        images: Given | Sequence[Given],
        *,
        bgr: bool = False,
        batch_size: int = 8,
        tile: int | None = None,
        overlap: float = OVERLAP,
    ) -> Detections | list[Detections]:
        """Return what is found on an image; on a list (or an array or tensor of four axes), a list of the same length.

        Args:
            images: each a path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W). Arrays and tensors
                are RGB, uint8 in 0..255 or floats in 0..1.
            bgr: arrays and tensors are BGR, as those of cv2.imread are.
            batch_size: images of a list that are read, and may pass the network, at once. Only images of the same size
                share a batch: another one's padding would change what is found.
            tile: detect on larger images in tiles of this side, in pixels, of which neighbours share `overlap`; see
                `detection.inference.tiles`. Their masks are a `MaskCrops`.

        Raises:
            DataError: no image, or one that cannot be read.
            ConfigError: `tile` or `overlap` cannot be.
        """
        if not is_several(images):
            return self([images], bgr=bgr, tile=tile, overlap=overlap)[0]
        tiling = None if tile is None else Tiling(tile, overlap)
        found: list[Detections] = []
        with ImageProgress(len(images), "detecting", visible=len(images) > batch_size) as progress:
            for start in range(0, len(images), batch_size):
                part = images[start : start + batch_size]
                found += self._detect_batch(part, bgr, tiling)
                progress.add(len(part))
        return found

    def stream(
        self, source: str | Path, *, every: int = 1, tile: int | None = None, overlap: float = OVERLAP
    ) -> Iterator[Detections]:
        """Yield what is found on each image that `source` names, in order, as `predict` has it: a folder, a pattern, a
        list, a tar shard or a video. Few images are in memory at a time.

        What cannot be read is left out with a warning. Results have their file as `source`, those of videos their
        `frame`, whose pixels they hold. Of several processes each yields its share.

        Args:
            every: of a video, detect on each frame whose number, from 0, this divides.
            tile, overlap: as when called with images.

        Raises:
            DataError: there is nothing of that name.
            ConfigError: a value that cannot be.
        """
        if every < 1:
            raise ConfigError(f"every must be 1 or more, not {every}")
        tiling = None if tile is None else Tiling(tile, overlap)
        config, order, channels = self.config, self.channel_order, len(self.config.MODEL.PIXEL_MEAN)
        inputs, batch_size = list_inputs(str(source), None), batch_size_of(config)
        model, transform = with_tiles(self.tested, TestTransform(config), tiling, order, batch_size)

        def read(item: Item) -> dict[str, Any]:
            return pinned(
                transform(pixels_of_item(item, channel_order=order, channels=channels), order), config.MODEL.DEVICE
            )

        def finish(item: Item, sample: dict[str, Any], instances: Instances) -> Detections:
            found = self._detections(instances, partial(pixels_of_item, item, channel_order=order, channels=channels))
            frame = item.frame if item.frame >= 0 else None
            return replace(found, source=str(inputs.root / item.row.name), frame=frame)

        threads = resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size())
        items = items_of(inputs, every=every)
        for _, result in run_pipeline(model, items, read, finish, batch_size=batch_size, threads=threads):
            if isinstance(result, DataError):
                log.warning("left out: %s", result)
            else:
                yield result

    def detect(self, image: np.ndarray) -> Instances:
        """Return detectron2's own record of what is found on a BGR uint8 image (H, W, 3), or on (H, W, C) where
        INPUT.FORMAT is "L" or "bands"; boxes come in its pixels."""
        return detect(self.tested, [TestTransform(self.config)(image)])[0]

    @property
    def channel_order(self) -> str:
        """The order of the channels in which images come to `detect`."""
        order = self.config.INPUT.FORMAT
        return order if order in ("L", "bands") else "BGR"

    def _detect_batch(self, images: Sequence[Given], bgr: bool, tiling: Tiling | None) -> list[Detections]:
        readers = [self._reader(image, bgr) for image in images]
        order = self.channel_order
        model, transform = with_tiles(
            self.tested, TestTransform(self.config), tiling, order, batch_size_of(self.config)
        )
        samples = [transform(read(), order) for read in readers]
        found = detect_in_batches(model, samples, lambda sample: sample, batch_size=len(samples))
        return [self._detections(instances.to("cpu"), read) for read, (_, instances) in zip(readers, found)]

    def _reader(self, image: Given, bgr: bool) -> Callable[[], np.ndarray]:
        channels = len(self.config.MODEL.PIXEL_MEAN)
        return partial(pixels_of, image, channel_order=self.channel_order, channels=channels, bgr=bgr)

    def _detections(self, instances: Instances, read: Callable[[], np.ndarray]) -> Detections:
        order = np.argsort(-instances.scores.numpy(), kind="stable")
        masks = instances.pred_masks.numpy()[order] if instances.has("pred_masks") else None
        return Detections(
            boxes=instances.pred_boxes.tensor.numpy()[order],
            scores=instances.scores.numpy()[order],
            labels=instances.pred_classes.numpy()[order],
            classes=self.classes,
            category_ids=self.category_ids,
            size=instances.image_size,
            masks=masks,
            keypoints=instances.pred_keypoints.numpy()[order] if instances.has("pred_keypoints") else None,
            read=lambda: picture_of(read(), self.channel_order),
        )


def load_trained_detector(
    path: str | Path,
    device: str | None = None,
    overrides: Sequence[object] = (),
    config: str | Path | None = None,
    *,
    read: tuple[Any, dict[str, str]] | None = None,
) -> Detector:
    """Build the detector of a checkpoint of this project, whose config is in it, or of another project's file.

    Such a file gets the config that its project has for such a detector, and the names of its classes.

    Args:
        device: "cuda" or "cpu"; by default what MODEL.DEVICE among the overrides says, else a GPU if there is one.
        overrides: KEY, VALUE, ... of the config's TEST section and its like; they are checked as for a training.
        config: for a file that carries none, as of `detection.get_config`.
        read: see `open_starting_weights`.

    Raises:
        WeightsError: no such checkpoint, or it carries no config and classes.
        ConfigError: its config is none of ours, or an override is wrong or not what the weights were trained with.
        RunError: the device is not there.
    """
    read = read_known(str(path)) if read is None else read
    content = read[0]
    refuse_others(content, path, DETECTION)
    carries = isinstance(content, dict) and isinstance(content.get("config"), str)
    if carries:
        checkpoint.checked(content, path)
        if config is not None:
            raise ConfigError(f"--config {config}: {path} carries its own config; KEY VALUE pairs change it")
        made, names, ids = _of_checkpoint(content, str(path))
    weights = open_starting_weights(str(path), read=read)
    if not carries:
        made, names, ids = _of_foreign(weights, config)
    trained = made.clone()
    made.MODEL.DEVICE = default_config().MODEL.DEVICE
    given = set(merge_overrides(made, overrides))
    if device is not None:
        made.MODEL.DEVICE = device
    check(made, trained, given, "command line")
    resolved, _ = WEIGHT_KEYS.resolve(made, weights.wanted(given), str(path), given)
    check_device(resolved.MODEL.DEVICE)
    check_ensemble(resolved)
    resolved.freeze()
    model = build(resolved)
    load_detector(model, weights)
    model.eval()
    detector = Detector(model, resolved, names, ids)
    if resolved.TEST.ENSEMBLE:
        # What is wrong with its checkpoints shows now.
        _ = detector.tested
    return detector


def _of_checkpoint(content: Mapping[str, Any], path: str) -> tuple[CfgNode, list[str], list[int]]:
    """Return config, classes and category ids that a checkpoint of ours carries."""
    metadata = content.get("metadata", {})
    if not metadata.get("classes"):
        raise WeightsError(f"{path}: holds weights alone; predict needs a checkpoint of tools/train_net.py")
    config = default_config()
    merge(config, parse_yaml(content["config"], f"{path}, its config"), path)
    names, ids = list(metadata["classes"]), list(metadata.get("category_ids", []))
    number = get(config, classes_key(config))
    if not len(names) == len(ids) == number:
        raise WeightsError(f"{path}: names {len(names)} classes, its config has {number}")
    return config, names, ids


def _of_foreign(weights: StartingWeights, given: str | Path | None) -> tuple[CfgNode, list[str], list[int]]:
    """Return config, classes and category ids of another project's detector; the usual ones where it names none."""
    if not isinstance(weights, ForeignDetector):
        raise WeightsError(f"{weights.source}: holds weights alone; predict needs a checkpoint of tools/train_net.py")
    config = load_config(given).clone() if given is not None else weights.config
    if config is None:
        raise WeightsError(
            f"{weights.source}: {weights.doubt or NO_CONFIG}; --config names one, a file of configs/ or "
            "detectron2:COCO-Detection/faster_rcnn_R_50_FPN_3x and its like"
        )
    config.defrost()
    number = number_of_classes(weights.tensors)
    put(config, classes_key(config), number or get(config, classes_key(config)))
    usual, usual_ids = named_classes(config, weights.tensors)
    names, ids = weights.classes or usual, weights.category_ids
    if len(names) != number:
        names, ids = [f"class {index + 1}" for index in range(number)], []
    ids = ids or (usual_ids if names == usual else list(range(1, number + 1)))
    for note in weights.notes:
        log.info("%s: %s", weights.source, note)
    if not weights.classes:
        log.warning("%s: names no classes; taken for %s", weights.source, some(names))
    return config, names, ids

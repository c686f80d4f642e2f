"""A trained classifier with all that belongs to it, by path or name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.commands import as_typed
from ..common.errors import ConfigError, DataError, UserError, WeightsError
from ..common.images import rgb_picture
from ..common.images.given import Given, is_several, pixels_of
from ..common.text import nearest, some
from ..engine import checkpoint
from ..engine.config import merge, merge_overrides, parse_yaml
from ..engine.defaults import reading_of
from ..engine.image_progress import ImageProgress
from ..engine.kinds import CLASSIFICATION, refuse_others
from ..engine.record import LOGGER
from ..engine.solver import check_device, device_of
from ..networks import Backbone
from ..weights import WeightsFile, candidates, interpret, read_file
from ..weights.identify import build
from .config import TEST_KEYS, check_values, default_config
from .guesses import Guesses
from .networks import load_into, prepare_for
from .task import one_view, protocol_of
from .testing import Protocol
from .testing.grad_cam import enlarged, grad_cam
from .testing.scoring import Scorer
from .testing.views import group_by_size

log = logging.getLogger(LOGGER)
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Classifier:
    """A network with a classifier, to be called with images.

    Attributes:
        network: in eval mode; classes: names by index.
        protocol: how an image is shown to it.
        prepare: from (N, C, H, W) pixels, RGB where they have colour, to the network's input.
        reading: keywords of `read_image` that say what the channels of its images are.
    """

    def __init__(
        self,
        network: Backbone,
        classes: Sequence[str],
        config: Any,
        prepare: Callable[[Tensor], Tensor],
        precision: str = "float32",
    ) -> None:
        self.network = network.eval()
        self.classes = list(classes)
        self.config = config
        self.protocol = _any_size(protocol_of(config.TEST.PROTOCOL, config), config)
        self.prepare = prepare
        self.reading = reading_of(config)
        settings = {"device": device_of(config), "batch_size": config.TEST.BATCH_SIZE, "amp": PRECISIONS[precision]}
        layout = {"channels_last": config.MODEL.CHANNELS_LAST}
        self._scorer = Scorer([network], prepare, self.protocol, **settings, **layout)

    def __call__(
        self, images: Given | Sequence[Given], *, bgr: bool = False, batch_size: int = 8
    ) -> Guesses | list[Guesses]:
        """Return the classes of an image; of a list (or an array or tensor of four axes), a list of the same length.

        Args:
            images: each a path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W). Arrays and tensors
                are RGB, uint8 in 0..255 or floats in 0..1.
            bgr: arrays and tensors are BGR, as those of cv2.imread are.
            batch_size: images of a list that are read, and pass the network, at once.

        Raises:
            DataError: no image, or one that cannot be read.
        """
        if not is_several(images):
            return self([images], bgr=bgr)[0]
        found: list[Guesses] = []
        with ImageProgress(len(images), "classifying", visible=len(images) > batch_size) as progress:
            for start in range(0, len(images), batch_size):
                part = images[start : start + batch_size]
                readers = [partial(self.pixels, image, bgr=bgr) for image in part]
                found += self.classify(readers, [read() for read in readers])
                progress.add(len(part))
        return found

    def pixels(self, image: Given, *, bgr: bool = False) -> np.ndarray:
        """Return an image as the network's views are cut from it: (H, W, C), RGB where it has colour."""
        return pixels_of(image, **self.reading, bgr=bgr)

    def classify(self, readers: Sequence[Callable[[], np.ndarray]], images: Sequence[np.ndarray]) -> list[Guesses]:
        """Return the classes of images (H, W, C) as `pixels` gives them; `readers` return them again."""
        samples = [(row, self.protocol.cut(image)) for row, image in enumerate(images)]
        with ImageProgress(len(images), "", visible=False) as progress:
            chunk = group_by_size(samples)
            probabilities, _ = self._scorer.run([chunk], (len(images), len(self.classes)), progress)
        order = probabilities.argsort(dim=1, descending=True, stable=True)
        scores = probabilities.gather(1, order).float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise DataError("the network's scores are not finite: its weights diverged, or its precision overflowed")
        return [
            Guesses(row, labels, self.classes, partial(self._picture, read), partial(self._look, read))
            for row, labels, read in zip(scores, order.cpu().numpy(), readers)
        ]

    def _picture(self, read: Callable[[], np.ndarray]) -> np.ndarray:
        return rgb_picture(read())

    def _look(self, read: Callable[[], np.ndarray], label: int) -> np.ndarray:
        image = read()
        protocol = _any_size(one_view(self.config), self.config)
        view = torch.from_numpy(np.ascontiguousarray(protocol.cut(image)[0])).to(self._scorer.device)
        cells = grad_cam(self.network, self.prepare(view.permute(0, 3, 1, 2)), torch.tensor([label]))
        height, width = image.shape[:2]
        side = max(1, round(min(height, width) * protocol.crop / protocol.shorter_side))
        top, left = (height - side) // 2, (width - side) // 2
        whole = np.zeros((height, width), np.float32)
        whole[top : top + side, left : left + side] = enlarged(cells, side, side)[0]
        return whole

    def __repr__(self) -> str:
        where, how = self._scorer.device, self.protocol.name
        return f"<Classifier: {self.network.architecture}, {len(self.classes)} classes, {how}, on {where}>"


def _any_size(protocol: Protocol, config: Any) -> Protocol:
    """Return the protocol; in place of "single" the one that is the same for images of TEST_SIZE and resizes others."""
    if protocol.name != "single":
        return protocol
    return Protocol("1crop", crop=config.INPUT.TEST_SIZE, shorter_side=config.INPUT.TEST_SIZE)


def load_classifier(
    path_or_name: str | Path,
    device: str | None = None,
    precision: str = "float32",
    *,
    part: str | None = None,
    classes: Sequence[str] | None = None,
    overrides: Sequence[object] = (),
) -> Classifier:
    """See `backbone.load_classifier`."""
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ConfigError(f"precision is {precision!r}; it may be {known}{nearest(precision, PRECISIONS)}")
    path = checkpoint.in_folder(path_or_name)
    content, text = read_file(path)
    weights = interpret(content, text, path, part=part)
    config = _config_of(content, weights, device, overrides)
    network = _network_of(weights, path)
    trained = load_into(network, weights)
    number = network.feature_info["logits"].channels
    names = _names(list(classes) if classes is not None else trained.classes, number, str(path_or_name))
    if trained.preprocessing is None:
        log.warning("%s: how images are prepared is not known; taken as for torchvision's", path_or_name)
    config.MODEL.NUM_CLASSES, config.MODEL.NAME = number, network.architecture
    known = trained.preprocessing
    if known is not None and "MODEL.PIXEL_MEAN" not in overrides:
        numbers = known.converted(value_range=255)
        config.INPUT.FORMAT = numbers.channel_order
        config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD = list(numbers.mean), list(numbers.std)
    config.freeze()
    return Classifier(network.to(device_of(config)), names, config, prepare_for(trained, config), precision)


def _config_of(content: Any, weights: WeightsFile, device: str | None, overrides: Sequence[object]) -> Any:
    """Return the unfrozen config of a checkpoint of this project, or a new one for other weights."""
    path, config = weights.source, default_config()
    text, shown = content.get("config") if isinstance(content, dict) else None, weights.metadata.get("test")
    refuse_others(content, path, CLASSIFICATION)
    if isinstance(text, str):
        merge(config, parse_yaml(text, f"{path}, its config"), f"{path}, its config")
    elif isinstance(shown, dict):
        pairs = [item for key in TEST_KEYS if key in shown for item in (key, shown[key])]
        merge_overrides(config, pairs, f"{path}, its metadata")
    config.MODEL.DEVICE = device or ("cuda" if torch.cuda.is_available() else "cpu")
    merge_overrides(config, overrides)
    check_values(config, str(path))
    check_device(config.MODEL.DEVICE)
    return config


def _network_of(weights: WeightsFile, path: str | Path) -> Backbone:
    try:
        network = build(weights, candidates(weights)[0])
    except UserError as error:
        raise WeightsError(f"{path}: no classifier that is known: {error}") from None
    if "logits" not in network.feature_info:
        other = as_typed("; tools/predict.py takes detectors and segmentation networks")
        raise WeightsError(f"{path}: holds a {network.architecture} without a classifier{other}")
    network.out_features = ("logits",)
    return network


def _names(names: list[str], number: int, source: str) -> list[str]:
    if names and len(names) != number:
        raise WeightsError(f"{source}: {len(names)} class names ({some(names)}), but a classifier of {number} classes")
    if names:
        return names
    if number == 1000:
        from torchvision.models import ResNet50_Weights

        # In the order of the wnids, which all classifiers of ImageNet have.
        return list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    log.warning("%s: names no classes; they are called by their numbers", source)
    return [str(index) for index in range(number)]

"""A detector as its config tests it: alone, or with the methods of Appendix B and the networks of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from backbone import DataError, WeightsError
from backbone.common.images import read_image, resize_image
from backbone.engine import checkpoint
from backbone.engine.config import merge, parse_yaml
from backbone.engine.timing import alternate

from ..config import default_config
from ..config.methods import methods_on
from ..data.mapper import Mapper, Resize, to_tensor
from ..modeling.testing import Network, Pipeline, methods_of
from .inference import detect
from .model import build
from .weights import load_detector

TIMED_IMAGES = 3
NO_LIMIT = 10**6  # longer side in pixels, where the config has none


def as_tested(model: nn.Module, config: CfgNode, classes: Sequence[str]) -> nn.Module:
    """Return `model` itself, or where the config asks for methods, the pipeline around it and TEST.ENSEMBLE.

    Raises:
        WeightsError: a checkpoint of TEST.ENSEMBLE cannot be read, or does not fit.
        DataError: one was trained on other classes.
    """
    if not methods_on(config):
        return model
    networks = [Network(model), *(load_network(path, config, classes) for path in config.TEST.ENSEMBLE)]
    return Pipeline(networks, methods_of(config))


def check_ensemble(config: CfgNode) -> None:
    """Raise WeightsError now, not after a training, for a file of TEST.ENSEMBLE that is not there."""
    for path in config.TEST.ENSEMBLE:
        if not Path(path).is_file():
            raise WeightsError(f"TEST.ENSEMBLE: {path} does not exist; it must name checkpoints of tools/train_net.py")


def load_network(path: str, config: CfgNode, classes: Sequence[str]) -> Network:
    """Build a further network of an ensemble: of the config in its checkpoint, else of `config`.

    Raises:
        WeightsError, DataError: as in `as_tested`.
    """
    content = checkpoint.load(path)
    named = list(content.get("metadata", {}).get("classes", []))
    if named and named != list(classes):
        raise DataError(f"TEST.ENSEMBLE: {path} was trained on other classes: {', '.join(map(str, named[:4]))}, ...")
    own = config.clone()
    own.defrost()
    if isinstance(content.get("config"), str):
        own = default_config()
        merge(own, parse_yaml(content["config"], f"{path}, its config"), str(path))
    own.MODEL.DEVICE = config.MODEL.DEVICE
    own.freeze()
    model = build(own)
    load_detector(model, path)
    return Network(model.eval(), reverse_channels=own.INPUT.FORMAT != config.INPUT.FORMAT)


def resizes(config: CfgNode) -> dict[int, Resize]:
    """Return the sizes, by shorter side, that the methods need beside the image of the plain test.

    Maxout keeps the limit of the longer side in proportion, so that all scales hold the same picture.
    """
    test, inputs = config.TEST, config.INPUT
    if test.MULTI_SCALE.ENABLED:
        ratio = inputs.MAX_SIZE_TEST / inputs.MIN_SIZE_TEST if inputs.MIN_SIZE_TEST else NO_LIMIT
        return {side: Resize((side,), round(side * ratio)) for side in test.MULTI_SCALE.SIDES}
    if test.AUG.ENABLED:
        return {side: Resize((side,), test.AUG.MAX_SIZE) for side in test.AUG.MIN_SIZES}
    return {}


def add_views(sample: dict[str, Any], read: Callable[[], np.ndarray], config: CfgNode) -> dict[str, Any]:
    """Give a sample the `views` that the config's methods need: {shorter side: image (3, H, W) uint8}.

    Args:
        read: returns the file's BGR image; called only where there is another size to make of it.
    """
    views, image = {}, None
    plain = Resize((config.INPUT.MIN_SIZE_TEST,), config.INPUT.MAX_SIZE_TEST)
    for side, resize in resizes(config).items():
        if resize == plain:
            views[side] = sample["image"]
            continue
        image = read() if image is None else image
        target = resize.target(image.shape[1], image.shape[0], side)
        views[side] = to_tensor(resize_image(image, *target), config.INPUT.FORMAT)
    return {**sample, "views": views} if views else sample


class ViewMapper:
    """A mapper of test images that adds the views which the config's methods need."""

    def __init__(self, mapper: Mapper, config: CfgNode) -> None:
        self.mapper = mapper
        self.images = mapper.images
        self.config = config

    def __call__(self, index: int) -> dict[str, Any]:
        """See `Mapper`; with `views`, see `add_views`."""
        size = self.images.size(index)
        return add_views(self.mapper(index), lambda: read_image(self.images.path(index), size=size), self.config)


def cost_line(plain: nn.Module, tested: Pipeline, mapper: ViewMapper) -> str:
    """Time a few images with the methods and without, and return a line with time and, on a GPU, peak memory."""
    number = min(TIMED_IMAGES, len(mapper.images))
    samples = [mapper(index) for index in range(number)]
    peaks: dict[str, int] = {}
    on_gpu = next(plain.parameters()).device.type == "cuda"

    def run(name: str, model: nn.Module) -> None:
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for sample in samples:
            detect(model, [sample])
        if on_gpu:
            peaks[name] = torch.cuda.max_memory_allocated()

    models = {"plain": plain, "tested": tested}
    ways = {name: lambda name=name, model=model: run(name, model) for name, model in models.items()}
    seconds = {name: timing.median / number for name, timing in alternate(ways, rounds=1, warm_up=int(on_gpu)).items()}
    line = (
        f"cost         {seconds['tested']:.3g} s an image with {', '.join(tested.methods.names)}; "
        f"{seconds['plain']:.3g} s plain ({seconds['tested'] / seconds['plain']:.1f}x, {number} images timed)"
    )
    if on_gpu:
        line += f"; peak GPU memory {peaks['tested'] / 2**30:.2f} GiB against {peaks['plain'] / 2**30:.2f} GiB"
    return line

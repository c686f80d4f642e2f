"""A trained segmentation network for images: built from its checkpoint alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..common.class_names import VOC_CLASSES
from ..common.errors import ConfigError
from ..engine import checkpoint
from ..engine.config import merge, merge_overrides, parse_yaml
from ..engine.defaults import preprocessing_of
from ..engine.kinds import SEGMENTATION, refuse_others
from ..engine.solver import check_device
from ..weights import read_file
from .config import check_values, default_config, load_config
from .data.coco import BACKGROUND
from .exported import fit_exported, is_exported, open_exported
from .inference import Inference, inference_of, predict, prepared
from .networks import build
from .weights import fit_weights, load_whole, number_of_classes, open_starting_weights


@dataclass(frozen=True)
class Segmenter:
    """A network in eval mode with all that belongs to it.

    Attributes:
        classes: names by label.
        notes: what was decided in loading it, a line each.
    """

    network: nn.Module
    config: Any
    classes: list[str]
    how: Inference
    notes: list[str]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the class of every pixel, (H, W) uint8, of an image (H, W, C), RGB uint8 or as the network has it."""
        return predict(self.network, image, self.how).byte().cpu().numpy()


def load_segmenter(
    path: str | Path,
    device: str | None = None,
    overrides: Sequence[object] = (),
    config: str | Path | None = None,
) -> Segmenter:
    """Build the network of a checkpoint or of another project's file, or open an exported one in its runtime.

    Args:
        path: a file, a name or a URL; of a run folder its best weights.
        device: "cuda" or "cpu"; by default what MODEL.DEVICE among the overrides says, else a GPU if there is one.
        overrides: KEY, VALUE, ... over the config, such as TEST.FLIP True.
        config: for a file that carries none; by default that of an FCN or DeepLabV3 with ResNet-50.

    Raises:
        WeightsError: no such file, or no segmentation network.
        ConfigError: a key or value is wrong, or not what the weights were trained with.
    """
    if is_exported(path):
        return _load_exported(path, overrides)
    path = checkpoint.in_folder(path)
    read = read_file(path)
    made = _config_of(read[0], path, config)
    made.MODEL.DEVICE = default_config().MODEL.DEVICE
    given = set(merge_overrides(made, overrides))
    if device is not None:
        made.MODEL.DEVICE = device
    # The second head trains the first one; nothing of it is seen in a test.
    made.MODEL.HEAD.AUX_WEIGHT = 0.0
    check_values(made, "command line")
    check_device(made.MODEL.DEVICE)
    weights = open_starting_weights(str(path), made.MODEL.WEIGHTS_PART, read)
    resolved, notes = fit_weights(made, weights, given, testing=True)
    classes = weights.classes or _names(weights.tensors)
    network = build(resolved, len(classes))
    load_whole(network, weights, classes)
    how = inference_of(resolved, partial(prepared, preprocessing=preprocessing_of(resolved), config=resolved))
    return Segmenter(network.eval(), resolved, list(classes), how, [*notes, *weights.notes])


def _load_exported(path: str | Path, overrides: Sequence[object]) -> Segmenter:
    exported, made = open_exported(path), default_config()
    made.MODEL.DEVICE = "cpu"
    merge_overrides(made, overrides)
    check_values(made, "command line")
    config = fit_exported(made, exported)
    return Segmenter(exported.network, config, exported.classes, inference_of(config, lambda pixels: pixels), [])


def _config_of(content: Any, path: str | Path, config: str | Path | None) -> Any:
    """Return the config that a checkpoint carries, or `config`, unfrozen."""
    refuse_others(content, path, SEGMENTATION)
    carried = content.get("config") if isinstance(content, dict) else None
    if not isinstance(carried, str):
        made = default_config() if config is None else load_config(config).clone()
        made.defrost()
        return made
    if config is not None:
        raise ConfigError(f"--config {config}: {path} carries its own config; KEY VALUE pairs change it")
    made = default_config()
    merge(made, parse_yaml(carried, f"{path}, its config"), f"{path}, its config")
    # Where the run's own weights came from says nothing of this file.
    made.MODEL.WEIGHTS = made.MODEL.WEIGHTS_PART = ""
    # The classes are in the checkpoint; their list lay with the training data.
    made.DATA.CLASSES = made.DATA.CLASSES if os.path.isfile(made.DATA.CLASSES) else ""
    return made


def _names(tensors: Any) -> list[str]:
    """Return names for the classes of a file that has none: VOC's for 21, else numbers."""
    number = number_of_classes(tensors) or 2
    voc = [BACKGROUND, *VOC_CLASSES]
    return voc if number == len(voc) else [str(label) for label in range(number)]

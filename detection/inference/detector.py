"""A trained detector with all that belongs to it, from its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import nn

from backbone import WeightsError
from backbone.engine import checkpoint
from backbone.engine.config import merge, merge_overrides, parse_yaml
from backbone.engine.solver import check_device

from ..config import check, default_config
from ..modeling.build import build
from ..weights.keys import WEIGHT_KEYS
from ..weights.load import load_detector
from .fast import state_of
from .methods import as_tested, check_ensemble
from .run import detect
from .transform import TestTransform


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

    def __call__(self, image: np.ndarray) -> Instances:
        """Detect on a BGR uint8 image (H, W, 3), or on (H, W, C) where INPUT.FORMAT is "L" or "bands"; boxes come in
        its pixels."""
        return detect(self.tested, [TestTransform(self.config)(image)])[0]


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
    detector = Detector(model, config, names, ids)
    if config.TEST.ENSEMBLE:
        # What is wrong with its checkpoints shows now.
        _ = detector.tested
    return detector

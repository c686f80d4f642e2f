"""The model of a config, ready to train or to run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from torch import nn

from backbone import ConfigError, DataError
from backbone.common.errors import ImageSizeError
from backbone.engine.config import get, put
from backbone.engine.record import LOGGER
from backbone.networks.calibration import calibrate_frozen_bn
from backbone.networks.norm import FrozenBatchNorm2d
from backbone.weights.zoos import suggestion

from ..config.names import architecture_of, classes_key, has_our_backbone
from ..data.mapper import Resize
from ..data.sets import DetectionSet
from ..evaluation.ground_truth import KEYPOINTS
from ..inference.transform import TestMapper, TestTransform
from ..modeling.backbone import network_of
from ..modeling.c4 import C4ROIHeads
from ..weights.load import StartingWeights, load_detector, load_initial

log = logging.getLogger(LOGGER)
CALIBRATION_SIDE = 320  # shorter side of the images that frozen BN is calibrated on


def make_optimizer(config: CfgNode, network: nn.Module) -> torch.optim.Optimizer:
    """Return detectron2's optimizer of SOLVER; gradients are clipped by the trainer, as in all tasks."""
    unclipped = config.clone()
    unclipped.defrost()
    unclipped.SOLVER.CLIP_GRADIENTS.ENABLED = False
    return build_optimizer(unclipped, network)


def fit_classes(config: CfgNode, classes: list[str], given: set[str]) -> CfgNode:
    """Return the config with the number of classes that the data has.

    Raises:
        ConfigError: another number was given on the command line.
    """
    key = classes_key(config)
    expected = get(config, key)
    if expected == len(classes):
        return config
    if key in given:
        raise ConfigError(
            f"{key} is {expected}, but the data has {len(classes)} categories; leave the key out, the data decides"
        )
    fitted = config.clone()
    fitted.defrost()
    put(fitted, key, len(classes))
    fitted.freeze()
    return fitted


def fit_keypoints(config: CfgNode, images: DetectionSet, given: set[str]) -> CfgNode:
    """Return the config with the number of keypoints that the data has.

    Raises:
        ConfigError: another number was given on the command line, or TEST.KEYPOINT_OKS_SIGMAS is of other keypoints.
    """
    if not config.MODEL.KEYPOINT_ON or images.keypoints is None:
        return config
    key, sigmas = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "TEST.KEYPOINT_OKS_SIGMAS"
    number = len(images.keypoint_names)
    if key in given and get(config, key) != number:
        raise ConfigError(f"{key} is {get(config, key)}, but the data has {number} keypoints; leave the key out")
    if (len(get(config, sigmas)) or KEYPOINTS) != number:
        raise ConfigError(
            f"{sigmas} must hold {number} numbers, the widths of the data's keypoints relative to an object's size; "
            f"without them, they are COCO's of {KEYPOINTS} keypoints"
        )
    fitted = config.clone()
    fitted.defrost()
    put(fitted, key, number)
    fitted.freeze()
    return fitted


def prepare_for_training(
    model: nn.Module, config: CfgNode, images: DetectionSet, weights: StartingWeights | None
) -> str:
    """Give a fresh model its first weights, or calibrate its frozen BN; return a line that says which."""
    if weights is not None:
        return load_initial(model, weights, config, images.classes)
    if not any(isinstance(module, FrozenBatchNorm2d) for module in network_of(model).modules()):
        return "none: random weights"
    number = min(config.MODEL.BACKBONE.CALIBRATION_IMAGES, len(images))
    if number == 0:
        return f"none: random weights, frozen BN as identity{_advice(config)}"
    _calibrate(model, config, images, number)
    return f"none: random weights, frozen BN calibrated on {number} training images{_advice(config)}"


def _advice(config: CfgNode) -> str:
    name = suggestion(architecture_of(config)[0]) if has_our_backbone(config) else None
    return (
        f"; --weights {name} starts from a pretrained backbone" if name else "; --weights gives a pretrained backbone"
    )


@torch.no_grad()
def _calibrate(model: nn.Module, config: CfgNode, images: DetectionSet, number: int) -> None:
    resize = Resize((CALIBRATION_SIDE,), 2 * CALIBRATION_SIDE)
    mapper = TestMapper(images, TestTransform(config, resize=resize, views=False))
    network = network_of(model)
    inputs = [model.preprocess_image([sample]).tensor for sample in _readable(mapper, number)]
    calibrate_frozen_bn(network, inputs)
    if isinstance(getattr(model, "roi_heads", None), C4ROIHeads):
        stage = model.roi_heads.in_features[0]
        calibrate_frozen_bn(model.roi_heads.res5, [network(batch)[stage] for batch in inputs])


def _readable(mapper: TestMapper, number: int) -> Iterator[dict[str, Any]]:
    """Yield the samples of the first images that can be read.

    Raises:
        DataError: none can.
    """
    found, fault = 0, None
    for index in range(len(mapper.images)):
        if found == number:
            return
        try:
            sample = mapper(index)
        except ImageSizeError:
            raise
        except DataError as error:
            fault = error
            continue
        found += 1
        yield sample
    if fault is not None and not found:
        raise fault


def load_trained(model: nn.Module, weights: StartingWeights, classes: list[str]) -> str:
    """Load a trained detector for evaluation; return a line that says what.

    Raises:
        WeightsError: it does not fit.
        DataError: it was trained on other classes.
    """
    if weights.classes and weights.classes != classes:
        raise DataError(f"{weights.source}: was trained on {_some(weights.classes)}, the data has {_some(classes)}")
    report = load_detector(model, weights)
    return f"{weights.source}: {len(report.loaded)} tensors"


def _some(names: list[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"

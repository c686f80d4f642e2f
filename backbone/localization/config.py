"""The keys of a localisation config with their defaults, and reading one. Keys that pretraining has are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from ..common.errors import ConfigError
from ..engine.config import load
from ..engine.defaults import (
    DATA_NOT_NEGATIVE,
    IMAGES,
    SCHEDULES,
    SHARED_AT_MOST,
    SHARED_CHOICES,
    SHARED_NOT_NEGATIVE,
    SHARED_POSITIVE,
    SIDE,
    add_data_keys,
    add_network_keys,
    add_training_keys,
    check_choices,
    check_numbers,
    check_pixels,
    check_steps,
    task_defaults,
)
from ..networks import ARCHITECTURES
from ..networks.resnet import SHORTCUTS, STEMS

TOOL = "tools/train_localization.py"
CHOICES = {
    **SHARED_CHOICES,
    "INPUT.FORMAT": ("RGB", "BGR"),
    "MODEL.NAME": sorted(ARCHITECTURES),
    "MODEL.KIND": ("rpn", "rcnn"),
    "MODEL.NORM": ("bn", "frozen_bn", "sync_bn", "gn"),
    "MODEL.STEM": STEMS,
    "MODEL.SHORTCUT": ("", *SHORTCUTS),
    "DATA.NAME": ("imagenet",),
    "SOLVER.LR_SCHEDULER_NAME": SCHEDULES,
    "SOLVER.MOMENTUM_FORM": ("caffe", "torch"),
    "TEST.VIEWS": ("1crop", "dense"),
    "TEST.CLASSES": ("truth", "predicted"),
}
POSITIVE = (
    *SHARED_POSITIVE,
    *("MODEL.ANCHOR_SIZES", "MODEL.ANCHOR_RATIOS", "MODEL.ANCHORS_PER_IMAGE", "MODEL.PROPOSALS"),
    *("INPUT.TRAIN_SIZE", "INPUT.TEST_SHORTER_SIDE", "TEST.DENSE_SIDES", "TEST.BATCH_SIZE"),
)
NOT_NEGATIVE = (*SHARED_NOT_NEGATIVE, *DATA_NOT_NEGATIVE)
AT_MOST = {
    **SHARED_AT_MOST,
    **dict.fromkeys(("INPUT.TRAIN_SIZE", "INPUT.SHORTER_SIDE", "INPUT.TEST_SHORTER_SIDE", "TEST.DENSE_SIDES"), SIDE),
    **dict.fromkeys(("TEST.BATCH_SIZE", "MODEL.PROPOSALS", "MODEL.ANCHORS_PER_IMAGE"), IMAGES),
}
FIGURES = ("table", "row", "data", "metric", "figure in %")
METRICS = ("true_class_error", "top5_error")


def default_config() -> CfgNode:
    """Return a fresh, unfrozen config."""
    return task_defaults(MODEL=_add_model, DATA=_add_data, INPUT=_add_input, SOLVER=_add_solver, TEST=_add_test)


def _add_model(model: CfgNode) -> None:
    add_network_keys(model)
    # As in detection, the statistics of BN stay those of the classifier.
    model.NORM = "frozen_bn"
    # "rpn": boxes from anchors on the last feature map; "rcnn": scores and moves the boxes of an RPN, one by one.
    model.KIND = "rpn"
    # Of an RPN: square roots of the anchors' areas, in pixels of the network's input.
    model.ANCHOR_SIZES = (64, 128, 256)
    # Of an RPN: heights over widths of the anchors.
    model.ANCHOR_RATIOS = (0.5, 1.0, 2.0)
    # Of an RPN: anchors of an image that a training step learns from, half of them positive.
    model.ANCHORS_PER_IMAGE = 8
    # Of R-CNN: the best boxes of a class that it learns from, and that it scores in a test.
    model.PROPOSALS = 200
    # NMS between them.
    model.PROPOSAL_NMS = 0.7


def _add_data(data: CfgNode) -> None:
    add_data_keys(data)
    # ImageNet CLS-LOC: ILSVRC/Data/CLS-LOC and its boxes below the root.
    data.NAME = "imagenet"
    # Folder of the training images below Data/CLS-LOC.
    data.TRAIN = "train"
    # Folder of the test images; "test" has no boxes, and writes the file for the evaluation server.
    data.VAL = "val"


def _add_input(node: CfgNode) -> None:
    # Side of the network's input: of the training crops, the centre crop, and the warped regions of R-CNN.
    node.TRAIN_SIZE = 224
    # Least and greatest shorter side of the image that a training crop is cut from.
    node.SHORTER_SIDE = (256, 480)
    # Mirror half of the training crops.
    node.FLIP = True
    # Of 1crop: shorter side of the image.
    node.TEST_SHORTER_SIDE = 256


def _add_solver(solver: CfgNode) -> None:
    add_training_keys(solver, batch=256, rate=0.01, length=60000)
    # "caffe": v := m v + lr g; "torch": w := w - lr (m v + g). They differ where the rate changes.
    solver.MOMENTUM_FORM = "caffe"
    # "WarmupMultiStepLR" or "WarmupCosineLR".
    solver.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    # Iterations at which the rate drops.
    solver.STEPS = (40000, 55000)


def _add_test(test: CfgNode) -> None:
    # Iterations between evaluations; 0 for the last one alone.
    test.EVAL_PERIOD = 10000
    # "1crop": the RPN sees the centre crop; "dense": the whole image at each of DENSE_SIDES.
    test.VIEWS = "1crop"
    # Shorter sides of the image for dense.
    test.DENSE_SIDES = (224, 256, 384, 480, 640)
    # Which classes get a box: "truth", the image's own, or "predicted", the five that CLASSIFIERS find likeliest.
    test.CLASSES = "truth"
    # Weights of classifiers, whose probabilities are averaged over DENSE_SIDES.
    test.CLASSIFIERS = ()
    # Of R-CNN: runs of RPNs, whose boxes it scores; those of several are united.
    test.PROPOSERS = ()
    # Further networks of the same kind, as an ensemble: boxes of RPNs are united, scores and moves of R-CNNs averaged.
    test.ENSEMBLE = ()
    # Regions of R-CNN, and views of a classifier, in a forward pass.
    test.BATCH_SIZE = 64


def load_config(path_or_name: str | Path, overrides: Sequence[object] = ()) -> CfgNode:
    """Return the frozen config of a YAML file (a path, or a name in configs/) with KEY, VALUE, ... on top.

    Raises:
        ConfigError: no such file, an unknown key (the nearest is named), or a wrong type or value.
    """
    return load(path_or_name, overrides, defaults=default_config(), check=check_values, tool=TOOL)


def check_values(config: CfgNode, source: str) -> None:
    """Raise ConfigError for the first value that cannot be."""
    check_choices(config, CHOICES, source)
    low, high = (*config.INPUT.SHORTER_SIDE, 0, 0)[:2]
    size = config.INPUT.TRAIN_SIZE
    if len(config.INPUT.SHORTER_SIDE) != 2 or not size <= low <= high:
        raise ConfigError(
            f"{source}: INPUT.SHORTER_SIDE must be two lengths in order, {size} (INPUT.TRAIN_SIZE) or more, not "
            f"{config.INPUT.SHORTER_SIDE}"
        )
    if min((*config.TEST.DENSE_SIDES, config.INPUT.TEST_SHORTER_SIDE)) < size or not config.TEST.DENSE_SIDES:
        raise ConfigError(
            f"{source}: TEST.DENSE_SIDES and INPUT.TEST_SHORTER_SIDE must be {size} (INPUT.TRAIN_SIZE) or more"
        )
    for key in ("ANCHOR_SIZES", "ANCHOR_RATIOS"):
        if not config.MODEL[key]:
            raise ConfigError(f"{source}: MODEL.{key} must hold a number or more")
    if not 0 < config.MODEL.PROPOSAL_NMS <= 1:
        raise ConfigError(f"{source}: MODEL.PROPOSAL_NMS must be above 0 and at most 1")
    for key in ("CLASSIFIERS", "PROPOSERS", "ENSEMBLE"):
        if not all(isinstance(path, str) and path for path in config.TEST[key]):
            raise ConfigError(f"{source}: TEST.{key} holds weights files, such as ('b.pth',), not {config.TEST[key]}")
    for row in config.PAPER.ROWS:
        if not isinstance(row, (list, tuple)) or len(row) != len(FIGURES) or row[3] not in METRICS:
            raise ConfigError(f"{source}: PAPER.ROWS holds [{', '.join(FIGURES)}], not {row!r}")
    check_steps(config, source)
    check_pixels(config, source)
    check_numbers(config, source, positive=POSITIVE, not_negative=NOT_NEGATIVE, at_most=AT_MOST)


def check_files(config: CfgNode) -> None:
    """Raise ConfigError where a test lacks the weights of other networks that it needs."""
    test = config.TEST
    if test.CLASSES == "predicted" and not test.CLASSIFIERS:
        raise ConfigError(
            "TEST.CLASSES predicted: TEST.CLASSIFIERS names no classifier; give weights, ('resnet101.pth',)"
        )
    if config.MODEL.KIND == "rcnn" and not test.PROPOSERS:
        raise ConfigError(
            "MODEL.KIND rcnn: TEST.PROPOSERS names no RPN; give the weights of its run, ('rpn/model_final.pth',)"
        )

"""The keys of a segmentation config with their defaults, and reading one. Keys that pretraining has are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from ..common.errors import ConfigError
from ..engine.class_weights import add_class_weights, check_class_weights
from ..engine.config import load
from ..engine.defaults import (
    DATA_NOT_NEGATIVE,
    SHARED_AT_MOST,
    SHARED_CHOICES,
    SHARED_NOT_NEGATIVE,
    SHARED_POSITIVE,
    SIDE,
    add_color_jitter,
    add_data_keys,
    add_network_keys,
    add_training_keys,
    check_choices,
    check_color_jitter,
    check_numbers,
    check_pixels,
    check_steps,
    task_defaults,
)
from ..networks import ARCHITECTURES
from ..networks.resnet import DILATION_STYLES, SHORTCUTS, STEMS
from .data.form import check_form
from .losses import LOSSES

HEADS, STYLES = ("fcn", "deeplabv3", "pspnet"), ("torchvision", "mmsegmentation")
CHOICES = {
    **SHARED_CHOICES,
    "MODEL.NAME": sorted(ARCHITECTURES),
    "MODEL.NORM": ("bn", "frozen_bn", "sync_bn", "gn"),
    "MODEL.STEM": STEMS,
    "MODEL.SHORTCUT": ("", *SHORTCUTS),
    "MODEL.OUTPUT_STRIDE": (8, 16, 32),
    "MODEL.DILATION_STYLE": DILATION_STYLES,
    "MODEL.HEAD.NAME": HEADS,
    "MODEL.HEAD.STYLE": STYLES,
    "DATA.NAME": ("voc", "coco", "folders", "cityscapes", "own", "mini"),
    "DATA.COCO_CLASSES": ("voc", "all"),
    "SOLVER.LOSS": LOSSES,
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR"),
}
POSITIVE = (*SHARED_POSITIVE, "SOLVER.POLY_POWER", "SOLVER.HEAD_LR_FACTOR", "INPUT.TRAIN_SIZE")
AT_MOST = {
    **SHARED_AT_MOST,
    **dict.fromkeys(("INPUT.TRAIN_SIZE", "INPUT.SHORTER_SIDE", "TEST.SHORTER_SIDE"), SIDE),
    "MODEL.HEAD.ATROUS_RATES": SIDE,
    "INPUT.SCALE": 16,
    "TEST.SCALES": 16,
    "TEST.WINDOW": SIDE,
    "TEST.PICTURES": 1000,
}
NOT_NEGATIVE = (
    *SHARED_NOT_NEGATIVE,
    *(
        "MODEL.FREEZE_AT",
        "MODEL.HEAD.AUX_WEIGHT",
        *DATA_NOT_NEGATIVE,
        "DATA.LEAST_AREA",
    ),
    *("INPUT.SHORTER_SIDE", "TEST.SHORTER_SIDE", "TEST.PICTURES", "TEST.WINDOW", "TEST.WINDOW_STRIDE"),
    *("SOLVER.FOCAL_GAMMA", "SOLVER.DICE_WEIGHT", "SOLVER.CLASS_BALANCE"),
)


def default_config() -> CfgNode:
    """Return a fresh, unfrozen config."""
    return task_defaults(MODEL=_add_model, DATA=_add_data, INPUT=_add_input, SOLVER=_add_solver, TEST=_add_test)


def _add_model(model: CfgNode) -> None:
    add_network_keys(model)
    # Stages without gradients, whose BN is frozen: 0 none, 1 stem, 2 stem and res2, ...
    model.FREEZE_AT = 0
    # 16 or 8: dilation stands in for the strides of the last stages.
    model.OUTPUT_STRIDE = 16
    # "torchvision", or "mmdetection": the first block of a dilated stage is dilated too.
    model.DILATION_STYLE = "torchvision"
    # Pooling that rounds its output up and does not pad, as Caffe's.
    model.CEIL_POOL = False
    # With whole weights of another set of classes: the layers that give the classes begin anew.
    model.NEW_CLASSIFIER = False
    model.HEAD = CfgNode()
    # On the last stage: "fcn", "deeplabv3" or "pspnet".
    model.HEAD.NAME = "fcn"
    # Whose form the first two have: "torchvision", or "mmsegmentation", with more channels and a convolution more.
    # "pspnet" is MMSegmentation's.
    model.HEAD.STYLE = "torchvision"
    # Enlarge scores by the centres of the corner pixels, as some of MMSegmentation's networks do.
    model.HEAD.ALIGN_CORNERS = False
    # Of deeplabv3; (): those of the output stride, 12, 24, 36 at 8 and half of them at 16.
    model.HEAD.ATROUS_RATES = ()
    # Weight of the loss of a second FCN head, on the stage before the last; 0 for no such head.
    model.HEAD.AUX_WEIGHT = 0.4


def _add_data(data: CfgNode) -> None:
    add_data_keys(data)
    # "voc", "coco", "cityscapes", "mini" (drawn here), "folders": images/ and labels/ with equal names, or "own":
    # whatever lies at the paths TRAIN and VAL; `--train` and `--val` set it.
    data.NAME = "voc"
    # Lists of images ("voc", "folders"), names of sets ("coco": train2017), or a path ("own").
    data.TRAIN = "train"
    # As TRAIN, for the tests.
    data.VAL = "val"
    # Of "own" in COCO's form: the folder of the training images, where it is not near the JSON file.
    data.TRAIN_FOLDER = ""
    # As TRAIN_FOLDER, for the tests.
    data.VAL_FOLDER = ""
    # Share of the training images that is held out to test on in place of VAL; the seed chooses.
    data.SPLIT = 0.0
    # Of "voc": the year, and the folder of the label images.
    data.YEAR = "2012"
    # Of "voc": the folder of the label images. Of "cityscapes": gtCoarse takes the coarse labels.
    data.LABEL_FOLDER = "SegmentationClass"
    # Of "coco": "voc" for the 20 classes that PASCAL VOC has too, "all" for all 80.
    data.COCO_CLASSES = "voc"
    # Of "coco": training images with fewer annotated pixels are left out, as in torchvision's reference training.
    data.LEAST_AREA = 1000
    # Of label images: file with the class names in the order of the labels, and with their colours where the images are
    # in colours; by default classes.txt below the root.
    data.CLASSES = ""
    # Of label images: which class each number in a file is, "7: 0, 8: sidewalk, 255: void, *: void", or a YAML or JSON
    # file with that.
    data.ID_MAP = ""
    # Of label images: 0 is void and 1 the first class, as in ADE20K.
    data.REDUCE_ZERO_LABEL = False
    # Of label images: further numbers in the files that are void, besides 255.
    data.VOID_LABELS = ()
    # Of "folders": what a label file has behind the name of its image, such as "_mask"; "" for nothing, or for the one
    # suffix that all have.
    data.LABEL_SUFFIX = ""


def _add_input(node: CfgNode) -> None:
    # Side of the training crops. An image smaller than that is padded with the mean pixel and void labels.
    node.TRAIN_SIZE = 513
    # Images are scaled by a random factor from SCALE, counted from this shorter side; 0: from their own size.
    node.SHORTER_SIDE = 0
    # Least and greatest factor of the image's size in training.
    node.SCALE = (0.5, 2.0)
    # Mirror half of the training images.
    node.FLIP = True
    add_color_jitter(node)


def _add_solver(solver: CfgNode) -> None:
    add_training_keys(solver, batch=16, rate=0.007, length=30000)
    # The heads' rate is this times BASE_LR, which is the backbone's.
    solver.HEAD_LR_FACTOR = 10.0
    # Of a pixel: "cross_entropy", or "focal", which is that times (1 - p)^FOCAL_GAMMA, p the probability of its class.
    solver.LOSS = "cross_entropy"
    # Of focal loss: how much less pixels count that are nearly right; 0 is cross-entropy.
    solver.FOCAL_GAMMA = 2.0
    # Weight of the Dice loss, which is added: 1 - 2 sum(p t) / (sum(p) + sum(t)), the mean over the classes in the
    # batch; 0 for none. Each process, and each part of SOLVER.ACCUMULATE, sums over its own images.
    solver.DICE_WEIGHT = 0.0
    add_class_weights(solver)
    # "WarmupPolyLR", "WarmupMultiStepLR" or "WarmupCosineLR".
    solver.LR_SCHEDULER_NAME = "WarmupPolyLR"
    # Of WarmupPolyLR: the rate is (1 - t / MAX_ITER) to this power, times BASE_LR.
    solver.POLY_POWER = 0.9
    # Of WarmupMultiStepLR: iterations at which the rate drops.
    solver.STEPS = ()


def _add_test(test: CfgNode) -> None:
    # Iterations between evaluations; 0 for the last one alone.
    test.EVAL_PERIOD = 5000
    # Images are tested whole: at their own size (0), or scaled to this shorter side. Labels keep their size.
    test.SHORTER_SIDE = 0
    # Class probabilities are averaged over these scales of the image, and over its mirror image.
    test.SCALES = (1.0,)
    # Average with the mirror image too.
    test.FLIP = False
    # Test in windows of this side, in pixels of the scaled image, for images that are larger than the training's crops;
    # 0: whole. Scores are averaged where windows overlap.
    test.WINDOW = 0
    # Pixels from one window to the next; 0: two thirds of WINDOW, rounded up.
    test.WINDOW_STRIDE = 0
    # Test images drawn with what was predicted and what is true.
    test.PICTURES = 12


def load_config(path_or_name: str | Path, overrides: Sequence[object] = ()) -> CfgNode:
    """Return the frozen config of a YAML file (a path, or a name in configs/) with KEY, VALUE, ... on top.

    Raises:
        ConfigError: no such file, an unknown key (the nearest is named), or a wrong type or value.
    """
    return load(
        path_or_name, overrides, defaults=default_config(), check=check_values, tool="tools/train_segmentation.py"
    )


def check_values(config: CfgNode, source: str) -> None:
    """Raise ConfigError for the first value that cannot be."""
    check_choices(config, CHOICES, source)
    scale = tuple(config.INPUT.SCALE)
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ConfigError(f"{source}: INPUT.SCALE must be two factors in order, not {scale}")
    scales = tuple(config.TEST.SCALES)
    if not scales or not all(factor > 0 for factor in scales):
        raise ConfigError(f"{source}: TEST.SCALES must be factors above 0, not {scales}")
    if config.TEST.WINDOW_STRIDE > config.TEST.WINDOW:
        raise ConfigError(
            f"{source}: TEST.WINDOW_STRIDE {config.TEST.WINDOW_STRIDE} is above TEST.WINDOW {config.TEST.WINDOW}: "
            "pixels between the windows would have no scores"
        )
    rates = tuple(config.MODEL.HEAD.ATROUS_RATES)
    if not all(isinstance(rate, int) and rate > 0 for rate in rates):
        raise ConfigError(f"{source}: MODEL.HEAD.ATROUS_RATES must be whole numbers above 0, not {rates}")
    check_class_weights(config, source)
    check_color_jitter(config, source)
    check_form(config.DATA, source)
    check_steps(config, source)
    check_pixels(config, source)
    check_numbers(config, source, positive=POSITIVE, not_negative=NOT_NEGATIVE, shares=("DATA.SPLIT",), at_most=AT_MOST)

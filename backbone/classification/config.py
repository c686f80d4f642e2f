"""The keys of a pretraining config with their defaults, and reading one. Where detection has a key, it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from ..common.errors import ConfigError
from ..common.text import nearest
from ..engine.class_weights import add_class_weights, check_class_weights
from ..engine.config import brief, get, load
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

# Sets of small images of one size, by DATA.NAME.
SMALL = ("cifar10", "cifar100")
CHOICES = {
    **SHARED_CHOICES,
    "MODEL.NORM": ("bn", "sync_bn", "gn"),
    "MODEL.STEM": STEMS,
    "MODEL.SHORTCUT": ("", *SHORTCUTS),
    "MODEL.COMPILE_MODE": ("default", "reduce-overhead", "max-autotune"),
    "DATA.NAME": ("imagenet", *SMALL, "folder", "own"),
    "INPUT.CROP": ("shorter_side", "area", "pad"),
    "SOLVER.LR_SCHEDULER_NAME": (*SCHEDULES, "Plateau"),
    "SOLVER.MOMENTUM_FORM": ("caffe", "torch"),
}
NOT_NEGATIVE = (
    *SHARED_NOT_NEGATIVE,
    *("MODEL.NUM_CLASSES", *DATA_NOT_NEGATIVE),
    *("INPUT.MIXUP", "INPUT.CUTMIX", "INPUT.LIGHTING", "INPUT.PAD", "SOLVER.PLATEAU_PATIENCE"),
    *("MODEL.FREEZE_AT", "SOLVER.CLASS_BALANCE", "TEST.MISTAKES"),
    "SOLVER.PLATEAU_MIN_EVALUATIONS",
)
POSITIVE = (
    *SHARED_POSITIVE,
    *("INPUT.TRAIN_SIZE", "INPUT.TEST_SIZE", "INPUT.TEST_SHORTER_SIDE", "TEST.DENSE_SIDES"),
    *("TEST.BATCH_SIZE", "TEST.PRECISE_BN.NUM_IMAGES"),
)
AT_MOST = {
    **SHARED_AT_MOST,
    **dict.fromkeys(("INPUT.TRAIN_SIZE", "INPUT.SHORTER_SIDE", "INPUT.PAD"), SIDE),
    **dict.fromkeys(("INPUT.TEST_SIZE", "INPUT.TEST_SHORTER_SIDE", "TEST.DENSE_SIDES"), SIDE),
    **dict.fromkeys(("MODEL.NUM_CLASSES", "TEST.BATCH_SIZE"), IMAGES),
    "MODEL.FREEZE_AT": 5,
    "TEST.MISTAKES": 1000,
    # More than ImageNet has.
    "TEST.PRECISE_BN.NUM_IMAGES": 2_000_000,
}
# How a trained network is shown images; a file of its weights alone carries these keys.
TEST_KEYS = ("TEST.PROTOCOL", "INPUT.TEST_SIZE", "INPUT.TEST_SHORTER_SIDE")
SHARES = ("DATA.SPLIT", "MODEL.DROP_PATH_RATE", "SOLVER.LABEL_SMOOTHING", "SOLVER.WARMUP_ERROR")
PROTOCOLS = ("single", "1crop", "10crop", "dense")


def default_config() -> CfgNode:
    """Return a fresh, unfrozen config."""
    return task_defaults(MODEL=_add_model, DATA=_add_data, INPUT=_add_input, SOLVER=_add_solver, TEST=_add_test)


def _add_model(model: CfgNode) -> None:
    add_network_keys(model)
    # Several weights files, whose probabilities are averaged: an ensemble, for evaluation.
    model.ENSEMBLE = ()
    # 0: as many as the data has.
    model.NUM_CLASSES = 0
    # With weights of a classifier of other classes: its last layer begins anew, all else as the weights have it.
    model.NEW_CLASSIFIER = False
    # Frozen stages: 0 for none, 1 the stem, 2 stem and res2, ..., 5 all but the classifier. Their weights stay, and the
    # statistics of their BN too.
    model.FREEZE_AT = 0
    # torch.compile of the training step's network.
    model.COMPILE = False
    # With COMPILE: "default"; "reduce-overhead" replays the step as CUDA graphs, for networks so small that starting
    # their kernels takes longer than running them; "max-autotune" also tries more kernels, and compiles long.
    model.COMPILE_MODE = "default"
    # Replay the network's passes as CUDA graphs, without compiling: for small networks on one GPU, whose kernels take
    # less time than starting them. A CPU takes no notice.
    model.CUDA_GRAPHS = False
    # Last BN of each residual block (with pre-activation: last convolution) begins at 0, so that blocks begin as
    # identity (Goyal et al., 2017).
    model.ZERO_INIT_RESIDUAL = False
    # Probability that a training step leaves out the last block's residual branch, image by image (stochastic depth);
    # it grows linearly from 0 at the first block.
    model.DROP_PATH_RATE = 0.0
    # Subtract the training set's mean image instead of MODEL.PIXEL_MEAN; images of one size alone.
    model.MEAN_IMAGE = False


def _add_data(data: CfgNode) -> None:
    add_data_keys(data)
    # "imagenet" or "folder": TRAIN/<class>/<file> and VAL below the root; "cifar10", "cifar100"; "own": TRAIN and VAL
    # are places of data in any form, as `--train` and `--val` set them.
    data.NAME = "imagenet"
    # Folder of the training images below the root; of "own", any place.
    data.TRAIN = "train"
    # Folder of the validation images below the root; of "own", any place.
    data.VAL = "val"
    # Of a CSV in "own": the folder of the training images, where it is not found by itself.
    data.TRAIN_FOLDER = ""
    # As TRAIN_FOLDER, of the validation images.
    data.VAL_FOLDER = ""
    # Share of the training images, of each class, that is held out to test on in place of VAL; the seed chooses.
    data.SPLIT = 0.0
    # File with the class of each image of a flat validation folder.
    data.VAL_SYNSETS = ""
    # File with the classes in order; by default synsets.txt, else the names of the training folders.
    data.CLASSES = ""
    # Show every class equally often: images of rare classes come several times an epoch, of frequent ones not in each.
    data.BALANCED = False
    # Random images instead of a data set: what the device does without waiting for data.
    data.SYNTHETIC = False


def _add_input(node: CfgNode) -> None:
    # "shorter_side": resize it to a length in SHORTER_SIDE, random crop of TRAIN_SIZE (the paper).
    # "area": a random part of the image (torchvision's RandomResizedCrop).
    # "pad": PAD zeros around, random crop (CIFAR).
    node.CROP = "shorter_side"
    # Side of the training crops, in pixels.
    node.TRAIN_SIZE = 224
    # Of CROP "shorter_side": least and greatest shorter side, in pixels.
    node.SHORTER_SIDE = (256, 480)
    # Of CROP "area": least and greatest share of the image's area.
    node.AREA = (0.08, 1.0)
    # Of CROP "pad": pixels on each side.
    node.PAD = 4
    # Mirror half of the training images.
    node.FLIP = True
    # Standard deviation of AlexNet's PCA lighting; 0 for none.
    node.LIGHTING = 0.1
    # Parameters of the beta distributions; 0 for none. With both, one of the two is drawn for each batch.
    node.MIXUP = 0.0
    # As MIXUP.
    node.CUTMIX = 0.0
    # Smaller images at first: (share of MAX_ITER, size) pairs; TRAIN_SIZE from the last share on.
    node.PROGRESSIVE = ()
    # Side of the test crops, in pixels.
    node.TEST_SIZE = 224
    # Shorter side of the test images before the crop, in pixels.
    node.TEST_SHORTER_SIDE = 256


def _add_solver(solver: CfgNode) -> None:
    add_training_keys(solver, batch=256, rate=0.1, length=600000)
    # "caffe": v = m v + lr g, so a drop of the rate reaches the update slowly; "torch": v = m v + g, update lr v.
    solver.MOMENTUM_FORM = "caffe"
    # Share of the probability that is spread over all classes.
    solver.LABEL_SMOOTHING = 0.0
    add_class_weights(solver)
    # "WarmupMultiStepLR", "WarmupCosineLR", or "Plateau".
    solver.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    # Of WarmupMultiStepLR: iterations at which the rate drops.
    solver.STEPS = (150000, 300000, 450000)
    # Of Plateau: evaluations without a lower error before the rate drops.
    solver.PLATEAU_PATIENCE = 3
    # Of Plateau: evaluations that every rate lasts at least.
    solver.PLATEAU_MIN_EVALUATIONS = 0
    # Stay at WARMUP_FACTOR until the training error is below this share (ResNet-110: 0.8); 0 for no such warm-up.
    solver.WARMUP_ERROR = 0.0


def _add_test(test: CfgNode) -> None:
    # Iterations between evaluations; 0 for the last one alone.
    test.EVAL_PERIOD = 5000
    # Of the evaluations on the way, and of the last one: "single" (the image as it is), "1crop", "10crop", "dense".
    test.PROTOCOL = "1crop"
    # Protocols of the last evaluation; () for PROTOCOL alone. `--protocol` replaces them.
    test.FINAL_PROTOCOLS = ()
    # Shorter sides of "dense".
    test.DENSE_SIDES = (224, 256, 384, 480, 640)
    # The worst mistakes of the last test that mistakes.html shows; 0 for no page.
    test.MISTAKES = 24
    # Test images a batch.
    test.BATCH_SIZE = 100
    # True averages of BN over that many training images, after the last step.
    test.PRECISE_BN = CfgNode({"ENABLED": True, "NUM_IMAGES": 10000})


def load_config(path_or_name: str | Path, overrides: Sequence[object] = ()) -> CfgNode:
    """Return the frozen config of a YAML file (a path, or a name in configs/) with KEY, VALUE, ... on top.

    Raises:
        ConfigError: no such file, an unknown key (the nearest is named), or a wrong type or value.
    """
    return load(path_or_name, overrides, defaults=default_config(), check=check_values, tool="tools/pretrain.py")


def check_values(config: CfgNode, source: str) -> None:
    """Raise ConfigError for the first value that cannot be."""
    choices = {**CHOICES, "MODEL.NAME": sorted(ARCHITECTURES), "TEST.PROTOCOL": PROTOCOLS}
    check_choices(config, choices, source)
    check_steps(config, source)
    check_pixels(config, source)
    check_numbers(config, source, positive=POSITIVE, not_negative=NOT_NEGATIVE, shares=SHARES, at_most=AT_MOST)
    _check_model(config, source)
    _check_protocols(config, source)
    _check_paper(config, source)
    _check_input(config, source)


def _check_protocols(config: CfgNode, source: str) -> None:
    for name in config.TEST.FINAL_PROTOCOLS:
        if name not in PROTOCOLS:
            raise ConfigError(
                f"{source}: TEST.FINAL_PROTOCOLS has {name!r}{nearest(str(name), PROTOCOLS)}; "
                f"protocols: {', '.join(PROTOCOLS)}"
            )
    check_tests(config, (config.TEST.PROTOCOL, *config.TEST.FINAL_PROTOCOLS), source)


def check_tests(config: CfgNode, protocols: Sequence[str], source: str) -> None:
    """Raise ConfigError for a protocol that does not fit the data."""
    crops = [name for name in protocols if name != "single"]
    name = config.DATA.NAME
    if name in SMALL and crops:
        raise ConfigError(f"{source}: {crops[0]!r} cuts files of many sizes; {name} is tested as it is, by 'single'")
    if config.MODEL.MEAN_IMAGE and "dense" in protocols:
        raise ConfigError(f"{source}: a mean image fits one size, dense tests many; set MODEL.MEAN_IMAGE False")


def _check_model(config: CfgNode, source: str) -> None:
    if not all(isinstance(file, str) for file in config.MODEL.ENSEMBLE):
        raise ConfigError(f"{source}: MODEL.ENSEMBLE holds weights files, not {brief(config.MODEL.ENSEMBLE)}")
    check_class_weights(config, source)
    mode = config.MODEL.COMPILE_MODE
    if mode != "default" and not config.MODEL.COMPILE:
        raise ConfigError(f"{source}: MODEL.COMPILE_MODE {mode!r} needs MODEL.COMPILE True")
    if config.MODEL.CUDA_GRAPHS and config.MODEL.CHECKPOINTING:
        raise ConfigError(
            f"{source}: MODEL.CUDA_GRAPHS and MODEL.CHECKPOINTING, which runs each block twice, do not go together"
        )
    if config.MODEL.CUDA_GRAPHS and config.MODEL.COMPILE:
        raise ConfigError(
            f"{source}: MODEL.CUDA_GRAPHS is for networks that are not compiled; with MODEL.COMPILE, "
            "MODEL.COMPILE_MODE reduce-overhead replays the step as CUDA graphs"
        )


def _check_paper(config: CfgNode, source: str) -> None:
    """Refuse rows that are not [table, row, protocol, top-1 error %, top-5 error %], 0 for a figure not there."""
    for row in config.PAPER.ROWS:
        kinds = (str, str, str, (int, float), (int, float))
        fits = isinstance(row, (list, tuple)) and len(row) == 5 and all(map(isinstance, row, kinds))
        if not fits or row[2] not in PROTOCOLS:
            raise ConfigError(f"{source}: PAPER.ROWS holds [table, row, protocol, top-1 %, top-5 %], not {row!r}")


def _check_input(config: CfgNode, source: str) -> None:
    name = config.DATA.NAME
    if config.INPUT.CROP == "pad" and name not in SMALL:
        raise ConfigError(
            f"{source}: INPUT.CROP 'pad' is for images of one size ({', '.join(SMALL)}); 'shorter_side' or 'area'"
        )
    if config.INPUT.CROP != "pad" and name in SMALL:
        raise ConfigError(
            f"{source}: INPUT.CROP {config.INPUT.CROP!r} is for files of many sizes; for {name} it is 'pad'"
        )
    order = config.INPUT.FORMAT
    if order not in ("RGB", "BGR") and name in SMALL:
        raise ConfigError(f"{source}: INPUT.FORMAT {order}: {name} has colour images; RGB or BGR")
    if order not in ("RGB", "BGR") and config.INPUT.LIGHTING:
        raise ConfigError(
            f"{source}: INPUT.LIGHTING shifts red, green and blue; for INPUT.FORMAT {order} set INPUT.LIGHTING 0"
        )
    low, high = _pair(config, "INPUT.SHORTER_SIDE", source)
    if config.INPUT.CROP == "shorter_side" and not config.INPUT.TRAIN_SIZE <= low <= high:
        raise ConfigError(
            f"{source}: INPUT.SHORTER_SIDE {tuple(config.INPUT.SHORTER_SIDE)} must be two lengths in order, not below "
            f"INPUT.TRAIN_SIZE {config.INPUT.TRAIN_SIZE}"
        )
    low, high = _pair(config, "INPUT.AREA", source)
    if not 0 < low <= high <= 1:
        raise ConfigError(f"{source}: INPUT.AREA must be two shares of the image in order, not {(low, high)}")
    for pair in config.INPUT.PROGRESSIVE:
        numbers = isinstance(pair, (list, tuple)) and [part for part in pair if isinstance(part, (int, float))]
        if not numbers or len(pair) != 2 or numbers != [*pair] or not (0 < pair[0] <= 1 and 32 <= pair[1] <= SIDE):
            raise ConfigError(f"{source}: INPUT.PROGRESSIVE holds pairs of a share of the run and a size, not {pair!r}")


def _pair(config: CfgNode, key: str, source: str) -> tuple[float, float]:
    values = tuple(get(config, key))
    if len(values) != 2:
        raise ConfigError(f"{source}: {key} must have two values, not {values}")
    return values

"""Config keys that every kind of training has, with their defaults, and the checks of values that all kinds share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from yacs.config import CfgNode

from ..common.errors import ConfigError
from ..common.preprocessing import CHANNEL_ORDERS, Preprocessing
from ..common.text import count, nearest
from .clipping import CLIP_TYPES
from .config import brief, get, leaves
from .extensions import add_keys

SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR")
# Of the keys of `add_shared_defaults`; a task puts its own beside them.
SHARED_CHOICES = {
    "INPUT.FORMAT": tuple(CHANNEL_ORDERS),
    "SOLVER.AMP.DTYPE": ("bfloat16", "float16"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": CLIP_TYPES,
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
}
# Of the keys of `add_shared_defaults`, and of those that every task has with a default of its own.
SHARED_POSITIVE = (
    *("SOLVER.IMS_PER_BATCH", "SOLVER.ACCUMULATE"),
    *("SOLVER.REFERENCE_BATCH_SIZE", "SOLVER.BASE_LR", "SOLVER.LOG_PERIOD", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE"),
)
SHARED_NOT_NEGATIVE = (
    *("SOLVER.MAX_ITER", "SOLVER.EPOCHS", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.CHECKPOINTS_TO_KEEP"),
    *("SOLVER.WARMUP_ITERS", "SOLVER.WARMUP_FACTOR", "SOLVER.MOMENTUM", "SOLVER.WEIGHT_DECAY", "SOLVER.GAMMA"),
    *("TEST.EVAL_PERIOD", "TEST.PATIENCE", "SEED"),
)
# Of the keys of `add_data_keys`.
DATA_NOT_NEGATIVE = ("DATA.TRAIN_IMAGES", "DATA.VAL_IMAGES", "DATA.MAX_BAD_IMAGES")
# Sizes above these come from a slip of the keyboard, and no machine has the memory or the time.
SIDE, IMAGES = 16_384, 2**20
COLORS = ("BRIGHTNESS", "CONTRAST", "SATURATION", "HUE")
SHARED_AT_MOST = {"DATALOADER.NUM_WORKERS": 1024, "SOLVER.IMS_PER_BATCH": IMAGES, "SOLVER.BASE_LR": 1000}


def task_defaults(**sections: Callable[[CfgNode], None]) -> CfgNode:
    """Return a fresh, unfrozen config of a task without detectron2: the shared keys, the task's, and the user's own.

    Args:
        sections: what adds the task's keys to each section, by its name.
    """
    config = CfgNode()
    # The run folder; `--output-dir` sets it.
    config.OUTPUT_DIR = ""
    add_shared_defaults(config)
    for name, add in sections.items():
        add(_section(config, name))
    return add_keys(config)


def add_shared_defaults(config: Any) -> None:
    """Add the shared keys to a CfgNode in place: a fresh one, or one whose defaults (detectron2's) they stand over."""
    # Seed of everything random: the same seed gives the same run, on a CPU to the same bits.
    config.SEED = 0
    # Where the numbers of a run go, beside metrics.jsonl: "tensorboard", "wandb", "mlflow", or a logger of your own.
    config.LOGGERS = ("tensorboard",)
    # Rows of the paper that a config stands for; what a row holds is the task's.
    _section(config, "PAPER").ROWS = ()
    # Worker processes that load images; -1: as many as there are processor cores for each training process, at most 8.
    _section(config, "DATALOADER").NUM_WORKERS = -1
    # Channel order of the images: "RGB" or "BGR". All tasks but localisation also take "L" (gray, one channel) and
    # "bands" (as many as MODEL.PIXEL_MEAN has numbers, in the order of the file: .npy, TIFF, PNG with alpha).
    _section(config, "INPUT").FORMAT = "RGB"
    # Evaluations one after the other without a new best after which a training ends; 0: it goes on to its last step.
    _section(config, "TEST").PATIENCE = 0
    _add_model(_section(config, "MODEL"))
    _add_solver(_section(config, "SOLVER"))


def _section(config: Any, name: str) -> Any:
    if name not in config:
        config[name] = type(config)()
    return config[name]


def _add_model(model: Any) -> None:
    # "cuda" or "cpu"; `--device` sets it.
    model.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # A checkpoint or backbone file to start from, or to evaluate: a path, a name (docs/weights.md) or a URL.
    model.WEIGHTS = ""
    # Which of several networks in that file, such as "teacher" or "model_ema"; "" for the only one. `--part` sets it.
    model.WEIGHTS_PART = ""
    # Memory layout of images, features and convolution weights.
    model.CHANNELS_LAST = False
    # On CPUs in float32, 3x3 convolutions of stride 1 are trained with a quarter of the multiplications, equal to
    # rounding. With a C++ compiler (g++ or $CXX), those whose channels are multiples of 16, by kernels that are
    # compiled for this processor once; else those of 128 channels and more, by torch's products of matrices.
    model.WINOGRAD = True
    # (pixel - mean) / std, pixels 0..255 in INPUT.FORMAT; these are of torchvision's weights. One for each channel of
    # the images; the network takes as many.
    model.PIXEL_MEAN = [123.675, 116.28, 103.53]
    # One for each channel, as PIXEL_MEAN.
    model.PIXEL_STD = [58.395, 57.12, 57.375]


def add_network_keys(model: Any) -> None:
    """Add what `backbone.create` takes, in the names that the tasks without detectron2 have for it."""
    # A network of `backbone.list_backbones()`.
    model.NAME = "resnet50"
    # Normalisation: "bn", "sync_bn" or "gn". All tasks but classification also take "frozen_bn".
    model.NORM = "bn"
    # The stride of a bottleneck stands in its first 1x1 convolution (the paper), else in its 3x3 (torchvision).
    model.STRIDE_IN_1X1 = False
    # "conv7", or "deep" for three 3x3 convolutions (ResNet-C and -D).
    model.STEM = "conv7"
    # "A", "B" or "C" of the paper, "" for the network's own.
    model.SHORTCUT = ""
    # Average pooling before the 1x1 convolution of a shortcut, instead of a stride in it (ResNet-D).
    model.AVERAGE_DOWN = False
    # Recompute each block in the backward pass: less memory, more time.
    model.CHECKPOINTING = False


def network_keywords(model: Any) -> dict[str, Any]:
    """Return the keywords of `networks.create` that the keys of `add_network_keys` stand for."""
    return {
        "norm": model.NORM,
        "in_chans": len(model.PIXEL_MEAN),
        "shortcut": model.SHORTCUT or None,
        "stride_in_1x1": model.STRIDE_IN_1X1,
        "stem": model.STEM,
        "average_down": model.AVERAGE_DOWN,
        "checkpointing": model.CHECKPOINTING,
    }


def add_color_jitter(inputs: Any) -> None:
    """Add COLOR_JITTER, what `color_jitter` reads, to INPUT."""
    # Brightness, contrast and saturation times a factor drawn from 1 - x to 1 + x, hue shifted by at most HUE of its
    # circle: torchvision's ColorJitter.
    inputs.COLOR_JITTER = type(inputs)({"ENABLED": False, **dict.fromkeys(COLORS, 0.2), "HUE": 0.02})


def color_jitter(inputs: Any) -> Any:
    """Return torchvision's ColorJitter of INPUT.COLOR_JITTER, of RGB or gray images; None where it is off."""
    jitter = inputs.COLOR_JITTER
    if not jitter.ENABLED:
        return None
    from torchvision.transforms import v2  # takes a while

    return v2.ColorJitter(jitter.BRIGHTNESS, jitter.CONTRAST, jitter.SATURATION, jitter.HUE)


def check_color_jitter(config: Any, source: str) -> None:
    """Raise ConfigError for factors of INPUT.COLOR_JITTER that are out of range, and for images without colours."""
    check_numbers(config, source, not_negative=[f"INPUT.COLOR_JITTER.{name}" for name in COLORS])
    if config.INPUT.COLOR_JITTER.HUE > 0.5:
        raise ConfigError(f"{source}: INPUT.COLOR_JITTER.HUE must be at most 0.5, not {config.INPUT.COLOR_JITTER.HUE}")
    if config.INPUT.COLOR_JITTER.ENABLED and config.INPUT.FORMAT == "bands":
        raise ConfigError(f"{source}: INPUT.COLOR_JITTER is for colour and gray images, not for INPUT.FORMAT bands")


def add_data_keys(data: Any) -> None:
    """Add what the tasks without detectron2 have in DATA alike."""
    # Root of the data sets; `--data-root` sets it.
    data.ROOT = ""
    # Use the first images alone; 0 for all.
    data.TRAIN_IMAGES = 0
    # As TRAIN_IMAGES.
    data.VAL_IMAGES = 0
    # Unreadable training images before the run stops; each is named, replaced by another, and counts once.
    data.MAX_BAD_IMAGES = 100


def add_training_keys(solver: Any, *, batch: int, rate: float, length: int) -> None:
    """Add what the tasks without detectron2 have in SOLVER alike.

    Args:
        batch: images a step; rate: learning rate for it; length: iterations of it.
    """
    # Images a step, of all processes together.
    solver.IMS_PER_BATCH = batch
    # Images a step for which the rate and the schedule were chosen; see AUTO_SCALE.
    solver.REFERENCE_BATCH_SIZE = batch
    # The learning rate, for REFERENCE_BATCH_SIZE images a step.
    solver.BASE_LR = rate
    # Iterations, for REFERENCE_BATCH_SIZE images a step.
    solver.MAX_ITER = length
    # Of the norms' parameters and of biases.
    solver.WEIGHT_DECAY_NORM = 1e-4
    # Iterations of the warm-up.
    solver.WARMUP_ITERS = 0
    # The rate at the start of the warm-up, as a share of BASE_LR.
    solver.WARMUP_FACTOR = 0.1


def _add_solver(solver: Any) -> None:
    # Follow the real batch: learning rate times IMS_PER_BATCH / REFERENCE_BATCH_SIZE, iterations divided by it.
    solver.AUTO_SCALE = True
    # Passes over the training set, in place of MAX_ITER; 0: MAX_ITER counts. The config's other counts of iterations
    # (STEPS, WARMUP_ITERS, CHECKPOINT_PERIOD, TEST.EVAL_PERIOD) keep their share of MAX_ITER.
    solver.EPOCHS = 0.0
    # Parts in which each process takes its share of the batch, one after the other: the same step in less memory.
    solver.ACCUMULATE = 1
    # Test and keep a moving average of the weights: after each step, this times it plus the rest of 1 times the
    # weights; 0 for none.
    solver.EMA_DECAY = 0.0
    clip = _section(solver, "CLIP_GRADIENTS")
    # Limit the gradients before each step: of the whole batch, and in true size with mixed precision too.
    clip.ENABLED = False
    # "value" limits each number, "norm" the norm of each parameter's gradient (both as detectron2 does), "full_model"
    # the norm of all gradients together (torch's clip_grad_norm_ over the network).
    clip.CLIP_TYPE = "value"
    # Largest size of a number, or largest norm.
    clip.CLIP_VALUE = 1.0
    # Of "norm" and "full_model": p of the p-norm.
    clip.NORM_TYPE = 2.0
    # Momentum of SGD.
    solver.MOMENTUM = 0.9
    # Nesterov's form of the momentum.
    solver.NESTEROV = False
    # Factor of the squared weights in the loss (its gradient is this times the weight).
    solver.WEIGHT_DECAY = 1e-4
    # The learning rate is multiplied by it at each of STEPS.
    solver.GAMMA = 0.1
    # How the rate grows from WARMUP_FACTOR to 1 times BASE_LR: "linear", or "constant" until the end of the warm-up.
    solver.WARMUP_METHOD = "linear"
    amp = _section(solver, "AMP")
    # Mixed precision: AMP.DTYPE where it is safe, else float32.
    amp.ENABLED = False
    # With AMP.ENABLED: "bfloat16" or "float16".
    amp.DTYPE = "bfloat16"
    # Iterations between checkpoints; 0 for the last one alone.
    solver.CHECKPOINT_PERIOD = 5000
    # Checkpoints kept beside the best one.
    solver.CHECKPOINTS_TO_KEEP = 2
    # Iterations between lines in the log, metrics.jsonl and TensorBoard.
    solver.LOG_PERIOD = 20


def check_choices(config: Any, choices: Mapping[str, Collection[Any]], source: str) -> None:
    """Raise ConfigError for the first key of `choices` whose value is none of its own, with those or the nearest."""
    for key, allowed in choices.items():
        value = get(config, key)
        if value not in allowed:
            shown = ", ".join(str(choice) or "''" for choice in allowed) if len(allowed) <= 4 else ""
            hint = f"; one of {shown}" if shown else nearest(str(value), allowed)
            raise ConfigError(f"{source}: {key} is {value!r}{hint}")


def check_steps(config: Any, source: str) -> None:
    """Raise ConfigError for a schedule that no training can follow."""
    if 0 < config.SOLVER.BASE_LR < 1e-12:
        raise ConfigError(f"{source}: SOLVER.BASE_LR {config.SOLVER.BASE_LR} is too small to change any weight")
    # Where the default of STEPS is empty, it does not say so.
    if not all(type(step) is int for step in config.SOLVER.STEPS):
        raise ConfigError(f"{source}: SOLVER.STEPS must hold whole numbers, not {brief(config.SOLVER.STEPS)}")
    if not config.SOLVER.CLIP_GRADIENTS.NORM_TYPE > 0:  # infinity too
        raise ConfigError(f"{source}: SOLVER.CLIP_GRADIENTS.NORM_TYPE must be above 0")
    check_numbers(config, source, shares=("SOLVER.EMA_DECAY",))
    parts, images = config.SOLVER.ACCUMULATE, config.SOLVER.IMS_PER_BATCH
    if parts > 0 and images % parts:
        raise ConfigError(f"{source}: SOLVER.ACCUMULATE {parts} must divide SOLVER.IMS_PER_BATCH, which is {images}")


def check_numbers(
    config: Any,
    source: str,
    *,
    positive: Collection[str] = (),
    not_negative: Collection[str] = (),
    shares: Collection[str] = (),
    at_most: Mapping[str, int] | None = None,
) -> None:
    """Raise ConfigError for the first key whose number, or one of whose numbers, is out of range; NaN is in none.

    Args:
        positive: keys whose value is above 0.
        not_negative: keys whose value is 0 or more.
        shares: keys whose value is from 0 to below 1.
        at_most: {key: its largest value}.
    """
    for keys, fits, wanted in (
        (positive, lambda number: 0 < number < math.inf, "above 0"),
        (not_negative, lambda number: 0 <= number < math.inf, "0 or more"),
        (shares, lambda number: 0 <= number < 1, "from 0 to below 1"),
    ):
        for key in keys:
            if not all(map(fits, leaves(get(config, key)))):
                raise ConfigError(f"{source}: {key} must be {wanted}, not {brief(get(config, key))}")
    for key, most in (at_most or {}).items():
        if not all(number <= most for number in leaves(get(config, key))):
            raise ConfigError(f"{source}: {key} must be at most {most:,}, not {brief(get(config, key))}")


def check_pixels(config: Any, source: str) -> None:
    """Raise ConfigError where (pixel - MODEL.PIXEL_MEAN) / MODEL.PIXEL_STD is not finite, or not of INPUT.FORMAT."""
    for key in ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"):
        values = list(get(config, key))
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise ConfigError(f"{source}: {key} must hold finite numbers, not {values}")
        if key.endswith("STD") and not all(value > 0 for value in values):
            raise ConfigError(f"{source}: {key} divides the pixels, each must be above 0, not {values}")
    order, mean, std = config.INPUT.FORMAT, config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD
    wanted = CHANNEL_ORDERS[order] or len(mean)
    if len(mean) != wanted or len(std) != len(mean) or not mean:
        others = '; in all tasks but localization, "L" takes gray images and "bands" any number of channels'
        hint = "" if order == "bands" else others
        raise ConfigError(
            f"{source}: INPUT.FORMAT {order} needs {count(wanted or 1, 'number')} in MODEL.PIXEL_MEAN and PIXEL_STD, "
            f"not {len(mean)} and {len(std)}{hint}"
        )


def reading_of(config: Any) -> dict[str, Any]:
    """Return how images are read for the network, as keywords of `read_image`: RGB for colour, else as INPUT.FORMAT."""
    order = config.INPUT.FORMAT
    return {"channel_order": "RGB" if order in ("RGB", "BGR") else order, "channels": len(config.MODEL.PIXEL_MEAN)}


def preprocessing_of(config: Any) -> Preprocessing:
    """Return what images go through on the way to the network, by MODEL and INPUT."""
    model = config.MODEL
    return Preprocessing(config.INPUT.FORMAT, 255, tuple(model.PIXEL_MEAN), tuple(model.PIXEL_STD))

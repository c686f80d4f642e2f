"""Networks of a config, new or from files."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.errors import ConfigError, WeightsError
from ..common.text import nearest
from ..engine.defaults import network_keywords
from ..engine.solver import device_of
from ..engine.starting_weights import IMAGE_KEYS, WeightKeys
from ..networks import Backbone, create, find_architecture, keywords_of
from ..weights import MisfitError, Preprocessing, WeightsFile, load_weights, open_weights
from ..weights.load import NEW_CLASSIFIER_HINT
from ..weights.weight_metadata import stride_doubt
from .data import ImagesInMemory, LabelledImages
from .data.augment import normalise


def _matters(config: Any, key: str) -> bool:
    """Whether the network heeds a key; a mean image stands in for the mean a channel.

    Images that are not of three channels are the config's own: weights of three are adapted to them.
    """
    return key not in IMAGE_KEYS or not (config.MODEL.MEAN_IMAGE or len(config.MODEL.PIXEL_MEAN) != 3)


WEIGHT_KEYS = WeightKeys(
    flags={
        "stride_in_1x1": "MODEL.STRIDE_IN_1X1",
        "average_down": "MODEL.AVERAGE_DOWN",
        # No config has this one: the weights set it on the network.
        "ceil_pool": "MODEL.CEIL_POOL",
        "shortcut": "MODEL.SHORTCUT",
    },
    stem="MODEL.STEM",
    architecture=lambda config: find_architecture(config.MODEL.NAME),
    matters=_matters,
)


# Of the paper's data sets, by DATA.NAME.
PAPER_CLASSES = {"imagenet": 1000, "cifar10": 10}


def resolve_classes(config: Any, classes: list[str], given: set[str]) -> Any:
    """Return the config with the number of classes that the data has, and PAPER.ROWS where the data is the paper's.

    Raises:
        ConfigError: another number was given on the command line.
    """
    expected = config.MODEL.NUM_CLASSES
    of_paper = PAPER_CLASSES.get(config.DATA.NAME) == len(classes) and not config.DATA.SYNTHETIC
    rows = config.PAPER.ROWS if of_paper else ()
    if expected == len(classes) and len(rows) == len(config.PAPER.ROWS):
        return config
    if expected != len(classes) and "MODEL.NUM_CLASSES" in given and expected:
        raise ConfigError(
            f"MODEL.NUM_CLASSES is {expected}, but the data has {len(classes)} classes; "
            "leave the key out, the data decides"
        )
    fitted = config.clone()
    fitted.defrost()
    fitted.MODEL.NUM_CLASSES, fitted.PAPER.ROWS = len(classes), rows
    fitted.freeze()
    return fitted


def build(config: Any) -> Backbone:
    """Build the network of MODEL with its classifier, on its device."""
    model = config.MODEL
    wanted = {
        **network_keywords(model),
        "num_classes": model.NUM_CLASSES,
        "out_features": ("logits",),
        "zero_init_residual": model.ZERO_INIT_RESIDUAL,
        "drop_path_rate": model.DROP_PATH_RATE,
        "freeze_at": model.FREEZE_AT,
    }
    known = keywords_of(model.NAME)
    defaults = (None, False, "conv7")  # 0.0 is False too
    for key, value in wanted.items():
        if key not in known and value not in defaults and key != "norm":
            raise ConfigError(f"MODEL.{key.upper()} {value!r}: {model.NAME} has no such choice{nearest(key, known)}")
    network = create(model.NAME, **{key: value for key, value in wanted.items() if key in known})
    layout = torch.channels_last if model.CHANNELS_LAST else torch.contiguous_format
    return network.to(device_of(config), memory_format=layout)


def mean_image(images: LabelledImages) -> Tensor:
    """Return the mean of a set's images, (3, H, W), 0..255.

    Raises:
        ConfigError: its images are files of many sizes.
    """
    if not isinstance(images, ImagesInMemory):
        raise ConfigError("MODEL.MEAN_IMAGE needs images of one size (CIFAR); leave it out, MODEL.PIXEL_MEAN is used")
    total = torch.zeros(images.pixels.shape[1:], dtype=torch.float64)
    for start in range(0, len(images), 4096):
        total += torch.from_numpy(images.pixels[start : start + 4096]).double().sum(0)
    return (total / max(1, len(images))).permute(2, 0, 1).float().contiguous()


@dataclass(frozen=True)
class Trained:
    """What a file holds for a test.

    Attributes:
        mean_image: as the checkpoint of a run carries it.
        preprocessing: None where nothing is known.
        classes: [] where nothing is known.
        doubt: what the file leaves open and the config has decided; "" for nothing.
    """

    mean_image: Tensor | None
    preprocessing: Preprocessing | None
    classes: list[str]
    doubt: str = ""

    def __str__(self) -> str:
        return "; ".join(filter(None, (str(self.preprocessing or "preprocessing unknown"), self.doubt)))


def fit_weights(config: Any, path: str, given: Collection[str], *, images: bool) -> tuple[Any, WeightsFile, list[str]]:
    """Read weights and set the config to what they ask of the network.

    Args:
        given: keys of the command line; they are checked, not changed.
        images: set the preprocessing too; a test takes it from the file itself, but for what its images are.

    Returns:
        The config, the weights, and what was set, a line each.

    Raises:
        WeightsError: the file cannot be read.
        ConfigError: a key of the command line has another value than the weights ask for.
    """
    # The other networks of an ensemble have files of their own.
    part = config.MODEL.WEIGHTS_PART if path == config.MODEL.WEIGHTS else ""
    weights = open_weights(path, part=part or None)
    wanted = WEIGHT_KEYS.of_backbone(weights.weight_metadata, weights.tensors)
    if not images and wanted.get("INPUT.FORMAT", "RGB") in ("RGB", "BGR"):
        wanted = {key: value for key, value in wanted.items() if key not in IMAGE_KEYS}
    assumed = weights.weight_metadata.preprocessing is not None and weights.weight_metadata.preprocessing.assumed
    config, notes = WEIGHT_KEYS.resolve(config, wanted, path, given, assumed=images and assumed)
    return config, weights, notes


def load_into(network: Backbone, weights: WeightsFile | str, *, new_classifier: bool | None = None) -> Trained:
    """Load a checkpoint of this tool, or weights of any layout, into a network with a classifier.

    Args:
        new_classifier: MODEL.NEW_CLASSIFIER of a training; None in a test, which has none.

    Raises:
        WeightsError: it cannot be read, or does not fit.
    """
    weights = open_weights(weights) if isinstance(weights, str) else weights
    path = weights.source
    try:
        report = load_weights(network, weights, new_classifier=bool(new_classifier))
    except MisfitError as error:
        if error.hint != NEW_CLASSIFIER_HINT:
            raise
        mend = "its classifier is one of other classes; train on these first (MODEL.NEW_CLASSIFIER True)"
        if new_classifier is not None:
            mend = "MODEL.NEW_CLASSIFIER True takes the rest and trains a new classifier"
        raise WeightsError(f"{error.problem}; {mend}") from None
    # As it is after the weights were adapted to the network's channels.
    known = network.preprocessing
    image = weights.metadata.get("mean_image")
    if image is not None and not (isinstance(image, Tensor) and image.ndim == 3):
        raise WeightsError(f"{path}: its mean image is none")
    # In a training, `fit_weights` has said it of weights whose preprocessing is assumed.
    inferred = new_classifier is not None and known is not None and known.assumed
    as_key = {stride_doubt("stride_in_1x1"): "" if inferred else stride_doubt(WEIGHT_KEYS.flags["stride_in_1x1"])}
    notes = filter(None, (as_key.get(note, note) for note in report.notes))
    return Trained(image, known, _class_names(weights), "; ".join(notes))


def prepare_for(trained: Trained, config: Any) -> Callable[[Tensor], Tensor]:
    """Return what turns RGB pixels 0..255 into the input that weights ask for; the config's where nothing is known."""
    layout = config.MODEL.CHANNELS_LAST
    known = trained.preprocessing
    numbers = known.converted(value_range=255) if known is not None else None
    order = numbers.channel_order if numbers else config.INPUT.FORMAT
    mean = numbers.mean if numbers else config.MODEL.PIXEL_MEAN
    std = numbers.std if numbers else config.MODEL.PIXEL_STD
    image = trained.mean_image

    def prepare(images: Tensor) -> Tensor:
        images = images.flip(1) if order == "BGR" else images
        return normalise(images, image if image is not None else mean, std, channels_last=layout)

    return prepare


def classes_of(path: str, part: str = "") -> list[str]:
    """Return the class names that a weights file carries, [] where it has none.

    Raises:
        WeightsError: it cannot be read.
    """
    return _class_names(open_weights(path, part=part or None))


def _class_names(weights: WeightsFile) -> list[str]:
    names = weights.metadata.get("classes")
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else []

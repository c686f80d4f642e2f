"""Networks of a config, new or from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.solver import device_of
from ..errors import ConfigError, WeightsError
from ..networks import Backbone, create, keywords_of
from ..networks.blocks import ResidualBlock
from ..text import nearest
from ..weights import Preprocessing, load_weights, open_weights
from ..weights.traits import traits_of
from .data import ImagesInMemory, LabelledImages


def settle_classes(config: Any, classes: list[str], given: set[str]) -> Any:
    """Return the config with the number of classes that the data has.

    Raises:
        ConfigError: another number was given on the command line.
    """
    expected = config.MODEL.NUM_CLASSES
    if expected == len(classes):
        return config
    if "MODEL.NUM_CLASSES" in given and expected:
        raise ConfigError(
            f"MODEL.NUM_CLASSES is {expected}, but the data has {len(classes)} classes; "
            "leave the key out, the data decides"
        )
    fitted = config.clone()
    fitted.defrost()
    fitted.MODEL.NUM_CLASSES = len(classes)
    fitted.freeze()
    return fitted


def build(config: Any) -> Backbone:
    """Build the network of MODEL with its classifier, on its device."""
    model = config.MODEL
    wanted = {
        "norm": model.NORM,
        "num_classes": model.NUM_CLASSES,
        "out_features": ("logits",),
        "shortcut": model.SHORTCUT or None,
        "stride_in_1x1": model.STRIDE_IN_1X1,
        "stem": model.STEM,
        "average_down": model.AVERAGE_DOWN,
        "checkpointing": model.CHECKPOINTING,
    }
    known = keywords_of(model.NAME)
    defaults = (None, False, "conv7")
    for key, value in wanted.items():
        if key not in known and value not in defaults and key != "norm":
            raise ConfigError(f"MODEL.{key.upper()} {value!r}: {model.NAME} has no such choice{nearest(key, known)}")
    network = create(model.NAME, **{key: value for key, value in wanted.items() if key in known})
    if model.ZERO_INIT_RESIDUAL:
        for block in (module for module in network.modules() if isinstance(module, ResidualBlock)):
            nn.init.zeros_((block.bn3 if hasattr(block, "bn3") else block.bn2).weight)
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


def load_into(network: Backbone, path: str, *, new_classifier: bool = False) -> Trained:
    """Load a checkpoint of this tool, or weights of any layout, into a network with a classifier.

    Raises:
        WeightsError: it cannot be read, or does not fit.
    """
    weights = open_weights(path)
    load_weights(network, weights, new_classifier=new_classifier)
    image = weights.metadata.get("mean_image")
    if image is not None and not (isinstance(image, Tensor) and image.ndim == 3):
        raise WeightsError(f"{path}: its mean image is none")
    classes = weights.metadata.get("classes") or []
    doubt = ""
    if weights.traits.stride_in_1x1 is None and traits_of(network)["stride_in_1x1"]:
        doubt = "the file does not say where the stride stands: in the 1x1 here, torchvision's own weights want "
        doubt += "MODEL.STRIDE_IN_1X1 False"
    return Trained(image, weights.traits.preprocessing, [str(name) for name in classes], doubt)

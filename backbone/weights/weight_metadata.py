"""What weights ask of the network beside its shapes, and how a network is held to it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from ..common.errors import WeightsError
from ..common.preprocessing import Preprocessing
from ..networks.contract import Backbone
from ..networks.resnet import DILATION_STYLES, OUTPUT_STRIDES, SHORTCUTS, STEMS

# Keywords of `backbone.create` that weights decide beside the shapes of their tensors, with their values.
KEYWORDS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("stride_in_1x1", "ceil_pool", "average_down"), (True, False)),
    "stem": STEMS,
    "shortcut": SHORTCUTS,
    "output_stride": OUTPUT_STRIDES,
    "dilation_style": DILATION_STYLES,
}
# Of those for which the tensors' names and shapes are the same: what a value means.
PLACES: dict[str, dict[Any, str]] = {
    "stride_in_1x1": {True: "their stride in the first 1x1 convolution", False: "their stride in the 3x3"},
    "average_down": {True: "shortcuts that average (ResNet-D)", False: "shortcuts with a stride"},
    "dilation_style": {"torchvision": "dilation as torchvision's", "mmdetection": "dilation as MMDetection's"},
}


@dataclass(frozen=True)
class WeightMetadata:
    """What is known of weights; None where nothing is.

    Attributes:
        preprocessing: of the images that they were trained on.
        stride_in_1x1: whether a bottleneck's stride stands in its first 1x1 convolution, else in its 3x3.
        ceil_pool: whether pooling rounds its output up and has no padding (Caffe).
        average_down: whether a projection shortcut averages over the pixels that its stride would skip (ResNet-D).
        stem, shortcut, output_stride, dilation_style: as of `backbone.networks.ResNet`; the last one of networks with
            dilated convolutions alone.
    """

    preprocessing: Preprocessing | None = None
    stride_in_1x1: bool | None = None
    ceil_pool: bool | None = None
    average_down: bool | None = None
    stem: str | None = None
    shortcut: str | None = None
    output_stride: int | None = None
    dilation_style: str | None = None

    def keywords(self) -> dict[str, Any]:
        """Return what is known as keywords of `backbone.create`; leave out those that the network does not take."""
        values = {name: getattr(self, name) for name in KEYWORDS}
        return {name: value for name, value in values.items() if value is not None}

    def updated(self, other: WeightMetadata) -> WeightMetadata:
        """Return this metadata with what `other` knows in their place."""
        known = {f.name: getattr(other, f.name) for f in fields(WeightMetadata)}
        return replace(self, **{name: value for name, value in known.items() if value is not None})

    def __str__(self) -> str:
        parts = []
        if self.preprocessing is not None:
            parts.append(str(self.preprocessing))
        if self.stride_in_1x1 is not None:
            parts.append(f"stride in {'1x1' if self.stride_in_1x1 else '3x3'}")
        if self.ceil_pool is not None:
            parts.append("pooling rounds up, no padding" if self.ceil_pool else "pooling with padding")
        if self.average_down:
            parts.append("shortcuts average (ResNet-D)")
        if self.shortcut not in (None, "B"):
            parts.append(f"shortcuts of option {self.shortcut}")
        if self.dilation_style is not None:
            parts.append(f"output stride {self.output_stride}, dilated as {self.dilation_style}")
        return "; ".join(parts) or "nothing known"


def options_of(network: nn.Module) -> dict[str, Any]:
    """Return the values of KEYWORDS in a network; None for what it does not have."""
    pools = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
    shortcuts = [module for module in network.modules() if hasattr(module, "pool_stride")]
    average_down = getattr(network, "average_down", None)
    if average_down is None and shortcuts:
        average_down = any(module.pool_stride is not None for module in shortcuts)
    dilated = any(module.dilation != (1, 1) for module in network.modules() if isinstance(module, nn.Conv2d))
    # Those of other classes than ours mean something else by such a name, if they have it.
    own = network if isinstance(network, Backbone) else None
    return {
        "stride_in_1x1": getattr(network, "stride_in_1x1", None),
        "ceil_pool": any(pool.ceil_mode for pool in pools) if pools else None,
        "average_down": average_down,
        "stem": getattr(own, "stem", None),
        "shortcut": getattr(own, "shortcut", None),
        "output_stride": getattr(own, "output_stride", None),
        "dilation_style": getattr(own, "dilation_style", None) if dilated else None,
    }


def check(network: nn.Module, weight_metadata: WeightMetadata, source: str) -> None:
    """Compare what cannot be changed in a network that is built.

    Raises:
        WeightsError: strides, shortcuts or dilations are others; names the keyword to create it with.
    """
    has = options_of(network)
    for name, places in PLACES.items():
        wanted = getattr(weight_metadata, name)
        if wanted is not None and has[name] is not None and has[name] != wanted:
            architecture = getattr(network, "architecture", "the network")
            raise WeightsError(
                f"{source}: the weights are of blocks with {places[wanted]}, {architecture} has {places[has[name]]}; "
                f"create it with {name}={wanted!r}"
            )


def doubts(network: nn.Module, weight_metadata: WeightMetadata) -> list[str]:
    """Return what the weights leave open, or what is otherwise than where they were trained, in words."""
    has, notes = options_of(network), []
    if weight_metadata.stride_in_1x1 is None and has["stride_in_1x1"]:
        notes.append(stride_doubt("stride_in_1x1"))
    stride = weight_metadata.output_stride
    if weight_metadata.dilation_style is not None and stride != has["output_stride"]:
        notes.append(f"trained with output_stride={stride} (dilated), the network has {has['output_stride']}")
    return notes


def stride_doubt(name: str) -> str:
    """Return the note for weights that do not say where the stride stands; `name` is the keyword or the key for it."""
    return f"{name} True kept; the file does not say, torchvision's own weights want {name} False"


def set_pooling(network: nn.Module, weight_metadata: WeightMetadata) -> str | None:
    """Set the network's max pooling as the weights ask.

    Returns:
        What was changed, in words; None when nothing was.
    """
    has = options_of(network)["ceil_pool"]
    if weight_metadata.ceil_pool is None or has is None or has == weight_metadata.ceil_pool:
        return None
    for pool in (module for module in network.modules() if isinstance(module, nn.MaxPool2d)):
        pool.ceil_mode = weight_metadata.ceil_pool
        if pool.kernel_size == 3:
            pool.padding = 0 if weight_metadata.ceil_pool else 1
    network.ceil_pool = weight_metadata.ceil_pool
    return "pooling set to round up without padding" if weight_metadata.ceil_pool else "pooling set to padding"

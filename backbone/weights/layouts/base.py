"""What every layout of names offers, and the tools they share. "Ours" are torchvision's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ...common.errors import WeightsError
from ..weight_metadata import WeightMetadata, options_of

# The eps of every BN in our networks; files with another are converted to it.
EPS = 1e-5
COUNTER = "num_batches_tracked"

# A pattern for the beginning of a name, and what stands in its place: a template of `re`, or a function of the match.
Rule = tuple[str, str | Callable[[re.Match], str]]


class Layout:
    """One project's names for the tensors of a network.

    Attributes:
        name: what `save_weights` and the reports call it.
        writable: whether `from_ours` exists.
        container: key under which the project's own files keep the tensors; None: nothing around them.
        anchors: ends of names by which a network of the layout is found inside of a greater model.
        counters: whether the project's BN counts its batches in `num_batches_tracked`.
    """

    name: str
    writable = True
    container: str | None = None
    anchors: tuple[str, ...] = ()
    counters = True

    def recognises(self, names: Collection[str]) -> bool:
        """Whether the names are of this layout."""
        raise NotImplementedError

    def to_ours(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> dict[str, Tensor]:
        """Return the tensors under our names; what the layout does not know keeps its name.

        Args:
            facts: what the file says beside its tensors: its metadata, "author", Caffe's parameters of layers.
        """
        raise NotImplementedError

    def weight_metadata(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> WeightMetadata:
        """Return what the layout alone tells; `tensors` under the file's names."""
        return WeightMetadata()

    def check(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Make sure that the project has such a network; raises WeightsError that says why not."""

    def from_ours(self, state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """Return a network's tensors under the layout's names."""
        raise NotImplementedError


def renamed(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Rename by the first rule that fits the beginning of a name; other names stay.

    Raises:
        WeightsError: two tensors get one name.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    result = {}
    for name, value in tensors.items():
        rule = next(((pattern, new) for pattern, new in compiled if pattern.match(name)), None)
        ours = rule[0].sub(rule[1], name, count=1) if rule else name
        if ours in result:
            raise WeightsError(f"two tensors for {ours}, the second is {name}")
        result[ours] = value
    return result


def block(match: re.Match, step: int) -> str:
    """Return "layer<stage + step>.<block>." from a match's groups 1 and 2."""
    return f"layer{int(match[1]) + step}.{match[2]}."


def straight_shortcuts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move `downsample.1` and `.2` (behind a pooling layer 0) to `.0` and `.1`, where our pooling has no place."""
    pooled = pooled_shortcuts(tensors)
    return renamed(tensors, [(rf"({prefix})(\d)\.", _moved(-1)) for prefix in pooled])


def pooled_shortcuts(names: Iterable[str]) -> list[str]:
    """Return, as patterns, the beginnings of the names of shortcuts with a pooling layer."""
    found = {match[1] for name in names if (match := re.match(r"(layer\d+\.\d+\.downsample\.)2\.", name))}
    return [re.escape(prefix) for prefix in sorted(found)]


def with_pooling(tensors: Mapping[str, Tensor], stages: str = r"\d") -> dict[str, Tensor]:
    """Undo `straight_shortcuts` in the stages that the pattern names."""
    return renamed(tensors, [(rf"(layer{stages}\.\d+\.downsample\.)(\d)\.", _moved(1))])


def _moved(step: int) -> Callable[[re.Match], str]:
    return lambda match: f"{match[1]}{int(match[2]) + step}."


def with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the counter of batches to every BN that has none: a frozen BN's tensors, for a network with BN."""
    result = {}
    for name, value in tensors.items():
        result[name] = value
        if name.endswith("running_var"):
            counter = name.removesuffix("running_var") + COUNTER
            result[counter] = tensors.get(counter, torch.tensor(0))
    return result


def structure(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, bool]:
    """Return what sets a network apart from the plain form of its family, from its tensors."""
    shortcuts = {name for name in state if name.endswith("downsample.0.weight")}
    inner, outer = state.get("layer1.0.conv1.weight"), state.get("layer1.0.conv3.weight")
    middle = state.get("layer1.0.conv2.weight")
    stem = state.get("conv1.weight")
    bottleneck = not any(weight is None for weight in (inner, middle, outer))
    later = any(name.startswith("layer2.0.") for name in state)
    first = [f"layer{stage}.0.downsample.0.weight" for stage in range(1 if bottleneck else 2, 5)]
    return {
        "vgg": "features.0.weight" in state,
        "preact": "layer1.0.conv1.weight" in state and "bn1.weight" not in state,
        "cifar": stem is not None and stem.shape[-1] == 3,
        "plain": (later or bottleneck) and not shortcuts,
        "all_projections": bool(shortcuts - set(first)),
        "groups": bottleneck and middle.shape[1] != inner.shape[0],
        "wide": bottleneck and middle.shape[1] == inner.shape[0] and inner.shape[0] * 4 != outer.shape[0],
        "deep": "conv1.0.weight" in state,
        "gn": any(isinstance(module, nn.GroupNorm) for module in network.modules()),
        **{name: bool(value) for name, value in options_of(network).items()},
    }


SAID = {
    "vgg": "VGG",
    "preact": "pre-activation networks",
    "cifar": "CIFAR networks",
    "plain": "networks without projection shortcuts (plain nets, option A)",
    "all_projections": "networks with a projection in every shortcut (option C)",
    "groups": "ResNeXt",
    "wide": "wide networks",
    "deep": "the deep stem of ResNet-C and -D",
    "gn": "GroupNorm",
    "stride_in_1x1": "bottlenecks with their stride in the first 1x1 convolution",
    "average_down": "the averaging shortcuts of ResNet-D",
}


def refuse(layout: str, network: nn.Module, has: Mapping[str, bool], *unknown: str) -> None:
    """Raise WeightsError if the network has one of the things that the layout's project does not know."""
    found = next((name for name in unknown if has[name]), None)
    if found:
        architecture = getattr(network, "architecture", "the network")
        raise WeightsError(
            f"layout {layout!r} has no {architecture} of this form: {layout} does not know {SAID[found]}; "
            "layout 'torchvision' takes every network"
        )

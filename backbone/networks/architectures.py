"""The table of architectures. Depth, channels, strides, parameter counts and docs derive from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..common.errors import ArchitectureError
from ..common.text import nearest

# Kinds of blocks in each family.
BLOCKS = {"resnet": ("basic", "bottleneck"), "preact": ("basic", "bottleneck"), "vgg": ("conv",)}
IMAGENET_WIDTHS, CIFAR_WIDTHS = (64, 128, 256, 512), (16, 32, 64)


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        blocks: residual blocks in each stage; for VGG, convolutions.
        block: "basic" (two 3x3), "bottleneck" (1x1, 3x3, 1x1), or "conv" for VGG.
        widths: channels of the 3x3 convolutions in each stage.
        family: "resnet" (plain nets too), "preact" or "vgg".
        stem: "conv7" (7x7 and max pooling, stride 4), "conv3" of CIFAR (stride 1), or "none" (VGG).
        shortcut: the paper's option "A", "B" or "C"; None for a plain net.
        groups, base_width: of the 3x3 convolutions in bottlenecks (ResNeXt and wide networks).
        batch_norm: VGG alone has a form without.

    Raises:
        ArchitectureError: a network of these values cannot be built.
    """

    blocks: tuple[int, ...]
    block: str
    widths: tuple[int, ...] = IMAGENET_WIDTHS
    family: str = "resnet"
    stem: str = "conv7"
    shortcut: str | None = "B"
    groups: int = 1
    base_width: int = 64
    batch_norm: bool = True

    def __post_init__(self) -> None:
        # Lists, as JSON and YAML give them; an entry is hashable.
        for name in ("blocks", "widths"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, fits, wanted in self._rules():
            if not fits:
                raise ArchitectureError(f"Architecture: {name} must be {wanted}, not {getattr(self, name)!r}")

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Yield an attribute, whether it fits, and what it must be; each rule may rely on those before it."""
        yield "family", self.family in tuple(BLOCKS), _one_of(BLOCKS)
        vgg, blocks = self.family == "vgg", BLOCKS[self.family]
        stems = ("none",) if vgg else ("conv7", "conv3")
        shortcuts = (None,) if vgg else ("A", "B", "C", None) if self.family == "resnet" else ("A", "B", "C")
        yield "block", self.block in blocks, _one_of(blocks)
        yield "stem", self.stem in stems, _one_of(stems)
        yield "shortcut", self.shortcut in shortcuts, _one_of(shortcuts)
        lists = isinstance(self.blocks, tuple) and self.blocks and all(map(_is_count, self.blocks))
        yield "blocks", bool(lists), "whole numbers from 1 on, one for each stage"
        fits = isinstance(self.widths, tuple) and len(self.widths) == len(self.blocks)
        fits = fits and all(map(_is_count, self.widths))
        yield "widths", fits, f"{len(self.blocks)} whole numbers from 1 on, one for each stage of blocks"
        for name, default in (("groups", 1), ("base_width", 64)):
            value = getattr(self, name)
            yield name, _is_count(value), "a whole number from 1 on"
            yield name, value == default or self.block == "bottleneck", f"{default} where blocks are no bottlenecks"
        narrow = self.block != "bottleneck" or min(self.widths) * self.base_width >= 64
        yield "base_width", narrow, f"at least 64 / {min(self.widths)}, the least of widths"
        yield "batch_norm", self.batch_norm is True or (vgg and self.batch_norm is False), "True (False: VGG alone)"

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that each stage gives; a bottleneck widens fourfold at its end."""
        return tuple(width * (4 if self.block == "bottleneck" else 1) for width in self.widths)

    @property
    def depth(self) -> int:
        """Layers with weights on the longest path: the number in the network's name."""
        if self.family == "vgg":
            return sum(self.blocks) + 3
        return {"basic": 2, "bottleneck": 3}[self.block] * sum(self.blocks) + 2

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages of blocks: res2, res3, ...; VGG's are conv1, conv2, ..."""
        first, name = (1, "conv") if self.family == "vgg" else (2, "res")
        return tuple(f"{name}{index + first}" for index in range(len(self.blocks)))

    @property
    def image_size(self) -> int:
        """Side of the square images that its classifier is trained on, in pixels."""
        return 32 if self.stem == "conv3" else 224

    @property
    def num_classes(self) -> int:
        """Classes of the data set it is trained on: ImageNet or CIFAR-10."""
        return 10 if self.image_size == 32 else 1000


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _one_of(names: Iterable[Any]) -> str:
    return "one of " + ", ".join(map(str, names))


RESNETS = {
    "resnet18": Architecture((2, 2, 2, 2), "basic"),
    "resnet34": Architecture((3, 4, 6, 3), "basic"),
    "resnet50": Architecture((3, 4, 6, 3), "bottleneck"),
    "resnet101": Architecture((3, 4, 23, 3), "bottleneck"),
    "resnet152": Architecture((3, 8, 36, 3), "bottleneck"),
}
RESNET200 = Architecture((3, 24, 36, 3), "bottleneck")


def _cifar(blocks: int, *, block: str = "basic", family: str = "resnet", shortcut: str | None = "A") -> Architecture:
    """6n+2 (basic) or 9n+2 (bottleneck) layers for n blocks a stage."""
    return Architecture((blocks,) * 3, block, CIFAR_WIDTHS, family, "conv3", shortcut)


VGG16 = Architecture((2, 2, 3, 3, 3), "conv", (64, 128, 256, 512, 512), "vgg", "none", None, batch_norm=False)

ARCHITECTURES = {
    **RESNETS,
    "plain18": replace(RESNETS["resnet18"], shortcut=None),
    "plain34": replace(RESNETS["resnet34"], shortcut=None),
    "wide_resnet50_2": replace(RESNETS["resnet50"], base_width=128),
    "wide_resnet101_2": replace(RESNETS["resnet101"], base_width=128),
    "resnext50_32x4d": replace(RESNETS["resnet50"], groups=32, base_width=4),
    "resnext101_32x8d": replace(RESNETS["resnet101"], groups=32, base_width=8),
    "resnext101_64x4d": replace(RESNETS["resnet101"], groups=64, base_width=4),
    **{f"preact_{name}": replace(table, family="preact") for name, table in RESNETS.items()},
    "preact_resnet200": replace(RESNET200, family="preact"),
    **{f"cifar_resnet{6 * n + 2}": _cifar(n) for n in (3, 5, 7, 9, 18, 200)},
    **{f"cifar_plain{6 * n + 2}": _cifar(n, shortcut=None) for n in (3, 5, 7, 9)},
    "cifar_preact_resnet110": _cifar(18, family="preact"),
    "cifar_preact_resnet164": _cifar(18, block="bottleneck", family="preact", shortcut="B"),
    "cifar_preact_resnet1001": _cifar(111, block="bottleneck", family="preact", shortcut="B"),
    "vgg16": VGG16,
    "vgg16_bn": replace(VGG16, batch_norm=True),
}


def named_architecture(architecture: str | Architecture, families: tuple[str, ...]) -> tuple[str, Architecture]:
    """Return the name and the table entry of what a network is built from: a name, or an Architecture of one's own.

    Raises:
        ArchitectureError: an unknown name, or an architecture of another family.
    """
    own = isinstance(architecture, Architecture)
    table = architecture if own else find_architecture(architecture)
    name = next((name for name, entry in ARCHITECTURES.items() if entry == table), "own") if own else architecture
    if table.family not in families:
        raise ArchitectureError(
            f"{name}: is of the family {table.family!r}, this class builds {' and '.join(families)}"
        )
    return name, table


def find_architecture(name: str) -> Architecture:
    """Return the table's entry.

    Raises:
        ArchitectureError: there is none; the message names the nearest.
    """
    if name not in ARCHITECTURES:
        raise ArchitectureError(f"unknown backbone {name!r}{nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]

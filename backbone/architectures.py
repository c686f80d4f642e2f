"""The table of architectures. Depth, channels, strides, parameter counts and docs derive from it."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ArchitectureError


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        blocks: residual blocks in each stage.
        block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1).
        widths: channels of the 3x3 convolutions in each stage.
        shortcut: the paper's option "A", "B" or "C"; None for a plain net.
        groups, base_width: of the 3x3 convolutions in bottlenecks (ResNeXt and wide networks).
    """

    blocks: tuple[int, ...]
    block: str
    widths: tuple[int, ...] = (64, 128, 256, 512)
    shortcut: str | None = "B"
    groups: int = 1
    base_width: int = 64

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that each stage gives; a bottleneck widens fourfold at its end."""
        return tuple(width * (4 if self.block == "bottleneck" else 1) for width in self.widths)

    @property
    def depth(self) -> int:
        """Layers with weights on the longest path: the number in the network's name."""
        layers = {"basic": 2, "bottleneck": 3}[self.block]
        return layers * sum(self.blocks) + 2

    @property
    def stages(self) -> tuple[str, ...]:
        """res2, res3, ...: one a stage of blocks."""
        return tuple(f"res{index + 2}" for index in range(len(self.blocks)))


ARCHITECTURES = {
    "resnet18": Architecture((2, 2, 2, 2), "basic"),
    "resnet34": Architecture((3, 4, 6, 3), "basic"),
    "resnet50": Architecture((3, 4, 6, 3), "bottleneck"),
    "resnet101": Architecture((3, 4, 23, 3), "bottleneck"),
    "resnet152": Architecture((3, 8, 36, 3), "bottleneck"),
}


def find_architecture(name: str) -> Architecture:
    """Return the table's entry.

    Raises:
        ArchitectureError: there is none; the message names the nearest.
    """
    if name not in ARCHITECTURES:
        from .text import nearest

        raise ArchitectureError(f"unknown backbone {name!r}{nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]

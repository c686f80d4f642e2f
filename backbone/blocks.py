"""The residual blocks of the paper (Fig. 5) and their shortcuts (Sec. 3.3). Module names are torchvision's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from .conv_norm import conv_norm
from .norm import make_norm


def conv3x3(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def conv1x1(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class ProjectionShortcut(nn.Sequential):
    """Option B of the paper: a 1x1 convolution and its norm, named 0 and 1 as torchvision's `downsample`."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__(conv1x1(inputs, outputs, stride=stride), make_norm(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(self[0], self[1], x)


class PaddedShortcut(nn.Module):
    """Option A of the paper: every `stride`-th pixel, new channels filled with zeros; no parameters.

    As in the authors' CIFAR networks and the follow-ups of them, the zeros are split evenly before and after.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (outputs - inputs) // 2
        self.channel_padding = (before, outputs - inputs - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channel_padding))


def make_shortcut(option: str, inputs: int, outputs: int, stride: int, norm: str) -> nn.Module | None:
    """Return the shortcut of a block by the paper's option A, B or C; None is the identity."""
    changes = stride != 1 or inputs != outputs
    if option == "C" or (option == "B" and changes):
        return ProjectionShortcut(inputs, outputs, stride, norm)
    return PaddedShortcut(inputs, outputs, stride) if changes else None


class ResidualBlock(nn.Module):
    """relu(residual(x) + shortcut(x)); a plain net's block leaves the shortcut out."""

    def __init__(self, shortcut: nn.Module | None, *, plain: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut
        self.plain = plain

    def residual(self, x: Tensor) -> Tensor:
        """The block's stacked layers up to the last norm, before the addition."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out = self.residual(x)
        if not self.plain:
            out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions. The first takes the stride."""

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        norm: str,
        shortcut: str | None,
        **_only_bottleneck,
    ) -> None:
        plain = shortcut is None
        super().__init__(None if plain else make_shortcut(shortcut, inputs, outputs, stride, norm), plain=plain)
        self.conv1 = conv3x3(inputs, width, stride=stride, dilation=dilations[0])
        self.bn1 = make_norm(norm, width)
        self.conv2 = conv3x3(width, outputs, dilation=dilations[1])
        self.bn2 = make_norm(norm, outputs)

    def residual(self, x: Tensor) -> Tensor:
        out = self.relu(conv_norm(self.conv1, self.bn1, x))
        return conv_norm(self.conv2, self.bn2, out)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions. The stride stands in the 3x3 (torchvision) or in the first 1x1 (paper, Caffe)."""

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        norm: str,
        shortcut: str | None,
        stride_in_1x1: bool,
        groups: int = 1,
        base_width: int = 64,
    ) -> None:
        inner = width * base_width // 64 * groups
        plain = shortcut is None
        super().__init__(None if plain else make_shortcut(shortcut, inputs, outputs, stride, norm), plain=plain)
        self.conv1 = conv1x1(inputs, inner, stride=stride if stride_in_1x1 else 1)
        self.bn1 = make_norm(norm, inner)
        # Dilation in place of a stride starts behind the layer that had the stride: at the 3x3 itself only if that
        # stride stood in the 1x1 before it.
        dilation = dilations[1] if stride_in_1x1 else dilations[0]
        self.conv2 = conv3x3(inner, inner, stride=1 if stride_in_1x1 else stride, dilation=dilation, groups=groups)
        self.bn2 = make_norm(norm, inner)
        self.conv3 = conv1x1(inner, outputs)
        self.bn3 = make_norm(norm, outputs)

    def residual(self, x: Tensor) -> Tensor:
        out = self.relu(conv_norm(self.conv1, self.bn1, x))
        out = self.relu(conv_norm(self.conv2, self.bn2, out))
        return conv_norm(self.conv3, self.bn3, out)


BLOCKS: dict[str, Callable[..., ResidualBlock]] = {"basic": BasicBlock, "bottleneck": Bottleneck}

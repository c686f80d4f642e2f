"""Residual blocks: the paper's (Fig. 5), its shortcuts (Sec. 3.3), and those with pre-activation (arXiv 1603.05027).

Module names are torchvision's: conv1, bn1, relu, ..., downsample.0 (convolution), downsample.1 (norm). So is the way in
which they are called; torch.jit.script, which cannot pass modules to functions, reads the branches for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contract import maybe_checkpoint
from .conv_norm import conv_norm, run_layers
from .norm import make_norm


@dataclass(frozen=True)
class BlockShape:
    """What a block is built from.

    Attributes:
        inputs, width, outputs: channels that come in, of the 3x3 convolutions (before groups), and that go out.
        dilation_before, dilation: of the 3x3 convolutions up to the layer that has (or would have) the stride, and
            behind it. Dilation in place of a stride starts behind the layer that had the stride.
        shortcut: option "A", "B" or "C"; None leaves the shortcut out.
        stride_in_1x1: a bottleneck's stride stands in its first 1x1 convolution, else in its 3x3.
        average_down: a projection averages over 2 x 2 pixels first (ResNet-D), with the block's stride.
        drop_path: probability that training leaves the residual branch out, image by image (stochastic depth).
    """

    inputs: int
    width: int
    outputs: int
    stride: int = 1
    dilation_before: int = 1
    dilation: int = 1
    norm: str = "bn"
    shortcut: str | None = "B"
    stride_in_1x1: bool = False
    groups: int = 1
    base_width: int = 64
    average_down: bool = False
    drop_path: float = 0.0


def conv3x3(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def conv1x1(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class ProjectionShortcut(nn.Sequential):
    """Option B of the paper: a 1x1 convolution, named 0, and its norm, named 1 (pre-activation blocks have none)."""

    def __init__(self, shape: BlockShape, *, normalised: bool) -> None:
        convolution = conv1x1(shape.inputs, shape.outputs, stride=1 if shape.average_down else shape.stride)
        super().__init__(convolution, *([make_norm(shape.norm, shape.outputs)] if normalised else []))
        # None: no averaging. 1: in a dilated stage; zeros behind the last row and column keep the size.
        self.pool_stride = shape.stride if shape.average_down else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool_stride is not None:
            if self.pool_stride == 1:
                x = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1)
            else:
                x = F.avg_pool2d(x, 2, self.pool_stride, ceil_mode=True, count_include_pad=False)
        if torch.jit.is_scripting():
            for layer in self:
                x = layer(x)
        else:
            x = run_layers(self, x)
        return x


class PaddedShortcut(nn.Module):
    """Option A of the paper: every `stride`-th pixel, new channels filled with zeros; no parameters.

    As in the published CIFAR networks, half of the zeros stand before and half behind the channels.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.stride = shape.stride
        before = (shape.outputs - shape.inputs) // 2
        self.channel_padding = (before, shape.outputs - shape.inputs - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channel_padding))


def make_shortcut(shape: BlockShape, *, normalised: bool = True) -> nn.Module | None:
    """Return the block's shortcut by the paper's option; None is the identity (or no shortcut at all)."""
    changes = shape.stride != 1 or shape.inputs != shape.outputs
    if shape.shortcut == "C" or (shape.shortcut == "B" and changes):
        return ProjectionShortcut(shape, normalised=normalised)
    return PaddedShortcut(shape) if shape.shortcut == "A" and changes else None


def make_drop_path(shape: BlockShape) -> nn.Module | None:
    """Return what leaves out residual branches in training; None for a probability of 0."""
    if not shape.drop_path:
        return None
    # Here, so that networks without it need torch alone.
    from torchvision.ops import StochasticDepth

    return StochasticDepth(shape.drop_path, "row")


def basic_convolutions(shape: BlockShape) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two 3x3 convolutions; the first takes the stride."""
    return (
        conv3x3(shape.inputs, shape.width, stride=shape.stride, dilation=shape.dilation_before),
        conv3x3(shape.width, shape.outputs, dilation=shape.dilation),
    )


def bottleneck_convolutions(shape: BlockShape) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    """1x1, 3x3 and 1x1 convolutions."""
    inner = shape.width * shape.base_width // 64 * shape.groups
    first, second = (shape.stride, 1) if shape.stride_in_1x1 else (1, shape.stride)
    # The 3x3 stands behind the layer with the stride only if that is the 1x1.
    dilation = shape.dilation if shape.stride_in_1x1 else shape.dilation_before
    return (
        conv1x1(shape.inputs, inner, stride=first),
        conv3x3(inner, inner, stride=second, dilation=dilation, groups=shape.groups),
        conv1x1(inner, shape.outputs),
    )


class ResidualBlock(nn.Module):
    """relu(residual(x) + shortcut(x)); a plain net's block leaves the shortcut out.

    (N, inputs, H, W) goes in, (N, outputs, H / stride, W / stride) comes out.

    Attributes:
        in_place: the addition is written over the output of the last norm.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.in_place = True
        self.downsample = make_shortcut(shape)
        self.plain = shape.shortcut is None
        self.relu = nn.ReLU(inplace=True)
        self.drop_path = make_drop_path(shape)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """Names of the convolutions and of the norms behind them."""
        return [(f"conv{index}", f"bn{index}") for index in (1, 2, 3) if hasattr(self, f"conv{index}")]

    def zero_residual(self) -> None:
        """Set the weights of the last norm to 0, so that the block begins as its shortcut alone."""
        nn.init.zeros_((self.bn3 if hasattr(self, "bn3") else self.bn2).weight)

    def finish(self, out: Tensor, x: Tensor) -> Tensor:
        """Return the block's output from that of its last norm and the block's input."""
        if self.drop_path is not None:
            out = self.drop_path(out)
        if not self.plain:
            if self.downsample is not None:
                x = self.downsample(x)
            if self.in_place:
                # torch.fx reads += as +, as in torchvision's blocks; a method that writes would change what it traced.
                out += x
            else:
                out = out + x
        return self.relu(out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (Fig. 5, left); shapes are those of `ResidualBlock`."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.conv1, self.conv2 = basic_convolutions(shape)
        self.bn1 = make_norm(shape.norm, shape.width)
        self.bn2 = make_norm(shape.norm, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        else:
            out = self.relu(conv_norm(self.conv1, self.bn1, x))
            out = conv_norm(self.conv2, self.bn2, out)
        return self.finish(out, x)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (Fig. 5, right); shapes are those of `ResidualBlock`."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.conv1, self.conv2, self.conv3 = bottleneck_convolutions(shape)
        self.bn1 = make_norm(shape.norm, self.conv1.out_channels)
        self.bn2 = make_norm(shape.norm, self.conv2.out_channels)
        self.bn3 = make_norm(shape.norm, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        else:
            out = self.relu(conv_norm(self.conv1, self.bn1, x))
            out = self.relu(conv_norm(self.conv2, self.bn2, out))
            out = conv_norm(self.conv3, self.bn3, out)
        return self.finish(out, x)


class PreActBlock(nn.Module):
    """residual(relu(bn1(x))) + shortcut: BN and ReLU come before the weights, the addition is left alone.

    A shortcut with a change of size starts from the activated input, the identity from the input itself. Shapes are
    those of `ResidualBlock`.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.bn1 = make_norm(shape.norm, shape.inputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(shape, normalised=False)
        self.drop_path = make_drop_path(shape)

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """Names of the convolutions and of the norms behind them; the last convolution has none."""
        return [(f"conv{index}", f"bn{index + 1}") for index in (1, 2) if hasattr(self, f"bn{index + 1}")]

    def zero_residual(self) -> None:
        """Set the weights of the last convolution to 0, so that the block begins as its shortcut alone."""
        nn.init.zeros_((self.conv3 if hasattr(self, "conv3") else self.conv2).weight)

    def finish(self, out: Tensor, x: Tensor, activated: Tensor) -> Tensor:
        """Add the shortcut to the output of the last convolution."""
        if self.drop_path is not None:
            out = self.drop_path(out)
        if self.downsample is not None:
            x = self.downsample(activated)
        return out + x


class PreActBasicBlock(PreActBlock):
    """Two 3x3 convolutions."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.conv1, self.conv2 = basic_convolutions(shape)
        self.bn2 = make_norm(shape.norm, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.bn1(x))
        if torch.jit.is_scripting():
            out = self.bn2(self.conv1(activated))
        else:
            out = conv_norm(self.conv1, self.bn2, activated)
        return self.finish(self.conv2(self.relu(out)), x, activated)


class PreActBottleneck(PreActBlock):
    """1x1, 3x3 and 1x1 convolutions."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.conv1, self.conv2, self.conv3 = bottleneck_convolutions(shape)
        self.bn2 = make_norm(shape.norm, self.conv1.out_channels)
        self.bn3 = make_norm(shape.norm, self.conv2.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.bn1(x))
        if torch.jit.is_scripting():
            out = self.bn3(self.conv2(self.relu(self.bn2(self.conv1(activated)))))
        else:
            out = self.relu(conv_norm(self.conv1, self.bn2, activated))
            out = conv_norm(self.conv2, self.bn3, out)
        return self.finish(self.conv3(self.relu(out)), x, activated)


BLOCKS: dict[tuple[str, str], Callable[[BlockShape], nn.Module]] = {
    ("resnet", "basic"): BasicBlock,
    ("resnet", "bottleneck"): Bottleneck,
    ("preact", "basic"): PreActBasicBlock,
    ("preact", "bottleneck"): PreActBottleneck,
}


class Stage(nn.Sequential):
    """The blocks of one stage, in order.

    Attributes:
        checkpointing: in training, keep each block's input alone and run the block again in the backward pass.
    """

    checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            if torch.jit.is_scripting():
                x = block(x)
            else:
                x = maybe_checkpoint(block, x, owner=block, checkpointing=self.checkpointing)
        return x

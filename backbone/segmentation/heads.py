"""Heads of MMSegmentation, under its names; torchvision has those of its own form."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOL_SCALES = (1, 2, 3, 6)


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and ReLU, of the same size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, dilation: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)))


class Head(nn.Module):
    """From the features of a stage to class scores; a head computes its own features between."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return (N, channels, h, w) of a stage's features."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.dropout(self.features(x)))


class FCN(Head):
    """Two convolutions, and a third over the stage's features and their result."""

    def __init__(self, inputs: int, classes: int) -> None:
        channels = inputs // 4
        super().__init__(channels, classes)
        self.convs = nn.Sequential(ConvNorm(inputs, channels), ConvNorm(channels, channels))
        self.conv_cat = ConvNorm(inputs + channels, channels)

    def features(self, x: Tensor) -> Tensor:
        return self.conv_cat(torch.cat([x, self.convs(x)], dim=1))


class Pooled(Head):
    """A convolution over several views of the stage's features beside each other, pooled ones among them."""

    def __init__(self, inputs: int, views: int, classes: int, *, align_corners: bool) -> None:
        channels = inputs // 4
        super().__init__(channels, classes)
        self.align_corners = align_corners
        self.bottleneck = ConvNorm(views, channels)

    def pooled(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return what `module` makes of the features, enlarged to their size."""
        return F.interpolate(module(x), x.shape[-2:], mode="bilinear", align_corners=self.align_corners)


class DeepLabV3(Pooled):
    """Dilated convolutions and the image's mean beside each other."""

    def __init__(self, inputs: int, classes: int, rates: Sequence[int], *, align_corners: bool) -> None:
        channels = inputs // 4
        super().__init__(inputs, (len(rates) + 2) * channels, classes, align_corners=align_corners)
        self.image_pool = _pool(1, inputs, channels)
        dilated = (ConvNorm(inputs, channels, dilation=rate) for rate in rates)
        self.aspp_modules = nn.ModuleList([ConvNorm(inputs, channels, kernel=1), *dilated])

    def features(self, x: Tensor) -> Tensor:
        views = [self.pooled(self.image_pool, x), *(module(x) for module in self.aspp_modules)]
        return self.bottleneck(torch.cat(views, dim=1))


class PSPNet(Pooled):
    """The features beside their means over the cells of several grids (Zhao et al., 2017)."""

    def __init__(self, inputs: int, classes: int, *, align_corners: bool) -> None:
        channels = inputs // 4
        super().__init__(inputs, inputs + len(POOL_SCALES) * channels, classes, align_corners=align_corners)
        self.psp_modules = nn.ModuleList([_pool(scale, inputs, channels) for scale in POOL_SCALES])

    def features(self, x: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([x, *(self.pooled(module, x) for module in self.psp_modules)], dim=1))


def _pool(scale: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNorm(inputs, outputs, kernel=1))

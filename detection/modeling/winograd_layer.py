"""detectron2's convolution in Winograd's form, for the pyramid and the heads in training."""

from __future__ import annotations

from detectron2.layers import Conv2d
from torch import Tensor

from backbone.networks.conv_norm import takes_winograd
from backbone.networks.winograd.training import Convolution


class WinogradLayer(Conv2d):
    """detectron2's convolution with norm and activation; made by `use_winograd`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for (N, C, H, W)."""
        if not takes_winograd(self, x):
            return super().forward(x)
        x = Convolution.apply(x, self.weight, self.bias, self.padding)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)

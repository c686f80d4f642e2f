"""What images must go through before a network with certain weights sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError

# With their number of channels; "bands" may have any.
CHANNEL_ORDERS = {"RGB": 3, "BGR": 3, "L": 1, "bands": None}


@dataclass(frozen=True)
class Preprocessing:
    """(pixel - mean) / std, channel by channel.

    Attributes:
        channel_order: "RGB", "BGR", "L" (gray) or "bands" (any number of channels, as the file has them).
        value_range: 255 where pixels are 0..255, 1 where they are divided by 255 first.
        mean, std: one number a channel, in `channel_order` and `value_range`.
        assumed: it is only the one usual for the layout of the weights' names; nothing in the file says so.
    """

    channel_order: str
    value_range: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    assumed: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.channel_order not in CHANNEL_ORDERS:
            raise WeightsError(f"preprocessing: channel_order must be RGB, BGR, L or bands, not {self.channel_order!r}")
        if self.value_range not in (1, 255):
            raise WeightsError(f"preprocessing: value_range must be 255 or 1, not {self.value_range!r}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._numbers(name))
        if len(self.mean) != len(self.std):
            raise WeightsError(f"preprocessing: {len(self.mean)} numbers in mean, {len(self.std)} in std")
        if min(self.std) <= 0:
            raise WeightsError(f"preprocessing: std must be above 0, not {list(self.std)}")

    def _numbers(self, name: str) -> tuple[float, ...]:
        try:
            values = tuple(float(value) for value in getattr(self, name))
        except (TypeError, ValueError):
            values = ()
        wanted = CHANNEL_ORDERS[self.channel_order]
        if not values or len(values) != (wanted or len(values)):
            number = {1: "one number", 3: "three numbers", None: "numbers"}[wanted]
            raise WeightsError(f"preprocessing: {name} must be {number}, not {getattr(self, name)!r}")
        if not all(math.isfinite(value) for value in values):
            raise WeightsError(f"preprocessing: {name} must be finite, not {list(values)}")
        return values

    def for_channels(self, channels: int) -> Preprocessing:
        """Return the numbers for images of another number of channels: the mean of all for one, else in turn."""
        if channels == len(self.mean):
            return self
        if channels == 1:
            mean, std = ((sum(values) / len(values),) for values in (self.mean, self.std))
        else:
            mean, std = (tuple(v[i % len(v)] for i in range(channels)) for v in (self.mean, self.std))
        return replace(self, channel_order="L" if channels == 1 else "bands", mean=mean, std=std)

    def converted(self, *, channel_order: str | None = None, value_range: float | None = None) -> Preprocessing:
        """Return the numbers for another channel order or value range.

        Weights keep the order they were trained with; another order here is a way to compare, or to feed pixels that
        come in it once the channels of the first convolution are turned too.
        """
        # What is no colour image has no other order.
        order = (channel_order if len(self.mean) == 3 else None) or self.channel_order
        order = self.channel_order if self.channel_order == "bands" else order
        step = 1 if order == self.channel_order else -1
        factor = (value_range or self.value_range) / self.value_range
        mean, std = ([value * factor for value in values][::step] for values in (self.mean, self.std))
        return Preprocessing(order, value_range or self.value_range, tuple(mean), tuple(std), self.assumed)

    def __call__(self, images: Tensor) -> Tensor:
        """Preprocess images.

        Args:
            images: (N, C, H, W) or (C, H, W), RGB (gray, or bands as the file has them), 0..255, any dtype.

        Returns:
            float32 (or the dtype of floating images), same shape, in `channel_order`.
        """
        images = images if images.is_floating_point() else images.float()
        if self.channel_order == "BGR":
            images = images.flip(-3)
        numbers = self.converted(value_range=255)
        make = _kept_channels if images.device.type == "cuda" else _channels
        mean, std = (make(values, images.dtype, images.device) for values in (numbers.mean, numbers.std))
        return (images - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them."""
        values = {"channel_order": self.channel_order, "value_range": self.value_range}
        values |= {"mean": list(self.mean), "std": list(self.std)}
        return values | ({"assumed": True} if self.assumed else {})

    @classmethod
    def from_dict(cls, values: Any) -> Preprocessing:
        """Read `to_dict`'s values; raises WeightsError where they are none."""
        names = ("channel_order", "value_range", "mean", "std")
        if not isinstance(values, dict) or not all(name in values for name in names):
            raise WeightsError(f"preprocessing must have {', '.join(names)}; got {str(values)[:80]!r}")
        return cls(**{name: values[name] for name in names}, assumed=values.get("assumed") is True)

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        usual = " (usual for the layout)" if self.assumed else ""
        return f"{self.channel_order} 0..{self.value_range:g}, mean {mean}, std {std}{usual}"


def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as (C, 1, 1)."""
    # Made in inference mode, a tensor could not be used in training later.
    with torch.inference_mode(False):
        return torch.tensor(values).to(device, dtype).view(-1, 1, 1)


# On a GPU they are kept: each copy there makes the step wait.
_kept_channels = lru_cache(maxsize=16)(_channels)

# ImageNet's statistics as torchvision, timm, transformers and OpenMMLab ("pytorch" style) use them.
IMAGENET = Preprocessing("RGB", 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
USUAL = replace(IMAGENET, assumed=True)
# timm's resnetv2 networks.
HALVES = Preprocessing("RGB", 1, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), assumed=True)
# detectron2/config/defaults.py: MSRA's networks, "std has been absorbed into conv1"; OpenMMLab's "caffe" style.
MSRA = Preprocessing("BGR", 255, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
# ResNeXt of Detectron's Caffe2 models; detectron2/model_zoo/configs/COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml.
CAFFE2_RESNEXT = Preprocessing("BGR", 255, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
# The authors' release subtracts a mean image, ResNet_mean.binaryproto; these are its means a channel, as the converter
# that their README names (github.com/ry/tensorflow-resnet) gives them.
CAFFE_RESNET = Preprocessing("BGR", 255, (103.062623801, 115.902882574, 123.151630838), (1.0, 1.0, 1.0))
# VGG-16's release: gist.github.com/ksimonyan/211839e770f7b538e2d8.
CAFFE_VGG = Preprocessing("BGR", 255, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))

"""What is shown of an image in a test (He et al., arXiv 1512.03385, Sec. 3.4 and 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...common.errors import ConfigError
from ...common.images import resize_image
from ...common.text import nearest

PROTOCOLS = ("single", "1crop", "10crop", "dense")


@dataclass(frozen=True)
class Protocol:
    """A way of testing. The class probabilities of an image are the mean over its views of the networks' softmax.

    - single: the image as it is (CIFAR).
    - 1crop: the centre, `crop` x `crop`, of the image at `shorter_side`.
    - 10crop: the four corners and the centre of the image at `shorter_side`, each also flipped.
    - dense: the whole image at each of `sides`, by the network in fully convolutional form: the class scores of all
      positions of a window of `crop` pixels are averaged, then comes the softmax, then the mean over the sides and,
      with `flip`, over the image and its flip.

    Attributes:
        name: one of PROTOCOLS.
        crop: side of the crops, and of the window of dense: that of the crops in training.
        shorter_side: of the image for 1crop and 10crop.
        sides: shorter sides of the image for dense.
        flip: of dense.

    Raises:
        ConfigError: an unknown name, or an image smaller than the crop.
    """

    name: str
    crop: int = 224
    shorter_side: int = 256
    sides: tuple[int, ...] = (224, 256, 384, 480, 640)
    flip: bool = True

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ConfigError(f"unknown protocol {self.name!r}{nearest(self.name, PROTOCOLS)}")
        if self.name == "single":
            return
        sides = self.sides if self.name == "dense" else (self.shorter_side,)
        if self.crop < 1 or not sides or min(sides) < self.crop:
            shown = ", ".join(map(str, sides)) or "none"
            raise ConfigError(
                f"{self.name}: the image's shorter sides ({shown}) must be at least the crop, {self.crop} pixels"
            )

    @property
    def flipped(self) -> bool:
        """Whether every view is shown flipped too."""
        return self.name == "10crop" or (self.name == "dense" and self.flip)

    @property
    def sizes(self) -> int:
        """Number of sizes at which an image is shown."""
        return len(self.sides) if self.name == "dense" else 1

    @property
    def views_a_size(self) -> int:
        """Number of views of an image at one size, flipped ones included."""
        return (5 if self.name == "10crop" else 1) * (2 if self.flipped else 1)

    def cut(self, image: np.ndarray) -> list[np.ndarray]:
        """Return the views of an image without their flips.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            an array (views, h, w, 3) for each size of view: one a side for dense, else one alone.
        """
        if self.name == "single":
            return [image[None]]
        if self.name == "dense":
            return [_resize_shorter(image, side)[None] for side in self.sides]
        image = _resize_shorter(image, self.shorter_side)
        corners = _five_corners(image, self.crop) if self.name == "10crop" else [_centre(image, self.crop)]
        return [np.stack([image[y : y + self.crop, x : x + self.crop] for y, x in corners])]


def _resize_shorter(image: np.ndarray, side: int) -> np.ndarray:
    """Resize to a shorter side; the longer is cut to whole pixels, as in torchvision."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    return resize_image(image, width * side // shorter, height * side // shorter)


def _centre(image: np.ndarray, crop: int) -> tuple[int, int]:
    """Return the upper left corner of the centre crop, rounded as in torchvision."""
    return round((image.shape[0] - crop) / 2), round((image.shape[1] - crop) / 2)


def _five_corners(image: np.ndarray, crop: int) -> list[tuple[int, int]]:
    bottom, right = image.shape[0] - crop, image.shape[1] - crop
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), _centre(image, crop)]

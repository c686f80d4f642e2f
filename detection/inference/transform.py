"""From an image to a sample as the config tests it."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from PIL import Image

from backbone.common.images import read_image, resize_image

from ..data.mapper import Resize, planes_of, to_tensor
from ..data.sets import DetectionSet
from ..data.view import resize_float

NO_LIMIT = 10**6  # longer side in pixels, where the config has none


class TestTransform:
    """An image at the size, and with its channels in the order, of the config's test; and at those of its methods.

    Args:
        resize: in place of the config's.
        views: whether to make the further sizes of the config's methods.
    """

    __test__ = False  # pytest takes it for a test by its name

    def __init__(self, config: CfgNode, *, resize: Resize | None = None, views: bool = True) -> None:
        inputs = config.INPUT
        self.channel_order, self.channels = inputs.FORMAT, len(config.MODEL.PIXEL_MEAN)
        self.resize = resize or Resize((inputs.MIN_SIZE_TEST,), inputs.MAX_SIZE_TEST, as_float=inputs.FLOAT_RESIZE)
        self.views = _views(config) if views else {}
        self.resize_image = resize_float if inputs.FLOAT_RESIZE else _pillow if inputs.EXACT_RESIZE else resize_image

    def __call__(self, image: np.ndarray, channel_order: str = "BGR") -> dict[str, Any]:
        """Return `image` (3, H, W) uint8 (or float32, resized as float), its memory channels last, `height` and
        `width` of the image as given and, where a method needs other sizes, `views`: {shorter side: the image there}.

        Args:
            image: (H, W, C), its channels in `channel_order`; gray and bands come as the config's INPUT.FORMAT.
        """
        height, width = image.shape[:2]
        reverse = channel_order != self.channel_order and self.channel_order in ("RGB", "BGR")

        def sized(resize: Resize, side: int) -> Any:
            resized = self.resize_image(image, *resize.target(width, height, side))
            return to_tensor(resized, "RGB") if reverse else planes_of(resized)

        sample = {"image": sized(self.resize, self.resize.sizes[0]), "height": height, "width": width}
        if self.views:
            same = {side: resize == self.resize for side, resize in self.views.items()}
            views = {side: sample["image"] if same[side] else sized(self.views[side], side) for side in self.views}
            sample["views"] = views
        return sample


class TestMapper:
    """Maps an index of a set to its sample for testing; each file is decoded once."""

    __test__ = False

    def __init__(self, images: DetectionSet, transform: TestTransform) -> None:
        self.images = images
        self.transform = transform

    def __call__(self, index: int) -> dict[str, Any]:
        """Return the sample of `TestTransform`, with `file_name` and `image_id`.

        Raises:
            DataError: the image cannot be decoded, or is not of the size that its record says.
        """
        path, order = str(self.images.path(index)), self.transform.channel_order
        size, channels = self.images.size(index), self.transform.channels
        image = read_image(path, size=size, channel_order=order, channels=channels)
        sample = self.transform(image, order)
        return {**sample, "file_name": path, "image_id": self.images.image_ids[index].item()}


def _pillow(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if image.shape[1::-1] == (width, height):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _views(config: CfgNode) -> dict[int, Resize]:
    """Return the further sizes of the config's methods, by shorter side.

    Maxout keeps the limit of the longer side in proportion, so that all scales hold the same picture.
    """
    test, inputs = config.TEST, config.INPUT
    if test.MULTI_SCALE.ENABLED:
        ratio = inputs.MAX_SIZE_TEST / inputs.MIN_SIZE_TEST if inputs.MIN_SIZE_TEST else NO_LIMIT
        return {
            side: Resize((side,), round(side * ratio), as_float=inputs.FLOAT_RESIZE) for side in test.MULTI_SCALE.SIDES
        }
    if test.AUG.ENABLED:
        return {side: Resize((side,), test.AUG.MAX_SIZE, as_float=inputs.FLOAT_RESIZE) for side in test.AUG.MIN_SIZES}
    return {}

"""From an image and its annotations to what detectron2's models take: decoded, resized, flipped, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import orjson
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, polygons_to_bitmask
from torch import Tensor

from backbone.images import read_image, resize_image

from .sets import DetectionSet

# Shorter than this, in pixels after resizing, a box is no target.
LEAST_SIDE = 1e-5


@dataclass(frozen=True)
class Resize:
    """Shorter side to one of `sizes` (or any between the two ends, for "range"), longer side at most `longest`."""

    sizes: tuple[int, ...]
    longest: int
    sampling: str = "choice"

    def draw(self, rng: np.random.Generator | None) -> int:
        """Return a shorter side; without a generator, the first."""
        if rng is None or len(self.sizes) == 1:
            return self.sizes[0]
        if self.sampling == "range":
            return int(rng.integers(self.sizes[0], self.sizes[1] + 1))
        return int(rng.choice(self.sizes))

    def target(self, width: int, height: int, shorter: int) -> tuple[int, int]:
        """Return the new (width, height); factors in detectron2's order, so that half a pixel is rounded as there."""
        if shorter == 0:
            return width, height
        short, long = float(shorter), shorter / min(width, height) * max(width, height)
        if long > self.longest:
            scale = self.longest / long
            short, long = short * scale, long * scale
        short, long = max(1, int(short + 0.5)), max(1, int(long + 0.5))
        return (short, long) if width < height else (long, short)


def to_tensor(image: np.ndarray, channel_order: str, *, flip: bool = False) -> Tensor:
    """Turn (H, W, 3) BGR uint8 into a contiguous (3, H, W) uint8 tensor in `channel_order` ("RGB" or "BGR")."""
    planes = image.transpose(2, 0, 1)
    planes = planes[::-1] if channel_order == "RGB" else planes
    planes = planes[:, :, ::-1] if flip else planes
    return torch.from_numpy(np.ascontiguousarray(planes))


class Mapper:
    """Maps an index of a DetectionSet to the dict of one image.

    Args:
        training: flip at random, and add `instances`; otherwise the image alone.
        flip: "horizontal", "vertical" or "none".
        mask_format: "polygon" or "bitmask"; used where the set has segmentations.
    """

    def __init__(
        self,
        images: DetectionSet,
        *,
        resize: Resize,
        channel_order: str,
        training: bool,
        flip: str = "horizontal",
        mask_format: str = "polygon",
    ) -> None:
        self.images = images
        self.resize = resize
        self.channel_order = channel_order
        self.training = training
        self.flip = flip
        self.mask_format = mask_format

    def __call__(self, index: int, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Return image (3, H, W) uint8, file_name, image_id, height and width of the file, and in training instances.

        Raises:
            DataError: the image cannot be decoded, or is not of the size that its record says.
        """
        width, height = self.images.size(index)
        image = read_image(self.images.path(index), size=(width, height))
        new_width, new_height = self.resize.target(width, height, self.resize.draw(rng if self.training else None))
        image = resize_image(image, new_width, new_height)
        flipped = self.training and self.flip != "none" and rng is not None and rng.random() < 0.5
        if flipped and self.flip == "vertical":
            image = image[::-1]
        sample = {
            "image": to_tensor(image, self.channel_order, flip=flipped and self.flip == "horizontal"),
            "file_name": str(self.images.path(index)),
            "image_id": self.images.image_ids[index].item(),
            "height": height,
            "width": width,
        }
        if self.training:
            sample["instances"] = self.targets(index, new_width, new_height, self.flip if flipped else "none")
        return sample

    def targets(self, index: int, width: int, height: int, flip: str) -> Instances:
        """Return ground truth of image `index`, crowds left out, in an image resized to width x height and flipped."""
        rows = np.arange(self.images.starts[index], self.images.starts[index + 1])
        rows = rows[~self.images.crowd[rows]]
        scale = np.array([width, height]) / np.array(self.images.size(index))
        boxes = self.images.boxes[rows] * np.tile(scale, 2)
        if flip == "horizontal":
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        elif flip == "vertical":
            boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        kept = ((boxes[:, 2:] - boxes[:, :2]) > LEAST_SIDE).all(axis=1)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes[kept].astype(np.float32)))
        instances.gt_classes = torch.from_numpy(self.images.labels[rows[kept]])
        if self.images.segmentations is not None:
            instances.gt_masks = self._masks(rows[kept], (height, width), scale, flip)
            # As in detectron2: an object without a mask would teach that its box holds nothing.
            instances = instances[instances.gt_masks.nonempty()]
        return instances

    def _masks(self, rows: np.ndarray, size: tuple[int, int], scale: np.ndarray, flip: str) -> PolygonMasks | BitMasks:
        segmentations = [_drawn(orjson.loads(self.images.segmentations[row])) for row in rows]
        moved = [
            _move_polygons(item, size, scale, flip) if isinstance(item, list) else _move_rle(item, size, flip)
            for item in segmentations
        ]
        if self.mask_format == "polygon" and all(isinstance(item, list) for item in moved):
            return PolygonMasks(moved)
        masks = [polygons_to_bitmask(item, *size) if isinstance(item, list) else item for item in moved]
        stacked = np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)
        return BitMasks(torch.from_numpy(stacked))


def _drawn(segmentation: Any) -> Any:
    """Return a segmentation without polygons of fewer than three points; an absent one is no polygon."""
    if isinstance(segmentation, dict) and segmentation:
        return segmentation
    return [polygon for polygon in segmentation or [] if len(polygon) >= 6]


def _move_polygons(
    polygons: list[list[float]], size: tuple[int, int], scale: np.ndarray, flip: str
) -> list[np.ndarray]:
    moved = []
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2) * scale
        if flip == "horizontal":
            points[:, 0] = size[1] - points[:, 0]
        elif flip == "vertical":
            points[:, 1] = size[0] - points[:, 1]
        moved.append(points.reshape(-1))
    return moved


def _move_rle(segmentation: dict[str, Any], size: tuple[int, int], flip: str) -> np.ndarray:
    from pycocotools import mask as coco_mask

    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    mask = cv2.resize(coco_mask.decode(segmentation), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    if flip != "none":
        mask = mask[:, ::-1] if flip == "horizontal" else mask[::-1]
    return np.ascontiguousarray(mask).astype(bool)

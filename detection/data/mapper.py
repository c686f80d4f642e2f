"""From an image and its annotations to what detectron2's models take: decoded, resized, flipped, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import cv2
import numpy as np
import orjson
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, polygons_to_bitmask
from torch import Tensor
from torch.nn import functional as F

from backbone.common.images import read_image, resize_image

from .keypoints import flip_partners, move_keypoints
from .proposals import Proposals
from .sets import DetectionSet
from .transforms import registered_transforms

# Shorter than this, in pixels after resizing, a box is no target.
LEAST_SIDE = 1e-5
# OpenCV's codes of the axes; "both" turns the image by half a circle.
FLIPS = {"vertical": 0, "horizontal": 1, "both": -1}
# numpy's axes of an (H, W, C) image.
AXES = {"none": (), "vertical": 0, "horizontal": 1, "both": (0, 1)}


@dataclass(frozen=True)
class Resize:
    """Shorter side to one of `sizes` (or any between the two ends, for "range"), longer side at most `longest`.

    Attributes:
        as_float: as torchvision's detectors, see `resize_float`; sides are rounded down.
    """

    sizes: tuple[int, ...]
    longest: int
    sampling: str = "choice"
    as_float: bool = False

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
        if self.as_float:
            scale = min(shorter / min(width, height), self.longest / max(width, height))
            return max(1, int(width * scale)), max(1, int(height * scale))
        short, long = float(shorter), shorter / min(width, height) * max(width, height)
        if long > self.longest:
            scale = self.longest / long
            short, long = short * scale, long * scale
        short, long = max(1, int(short + 0.5)), max(1, int(long + 0.5))
        return (short, long) if width < height else (long, short)


def to_tensor(image: np.ndarray, channel_order: str) -> Tensor:
    """Turn (H, W, 3) BGR uint8 into a (3, H, W) uint8 tensor in `channel_order` ("RGB" or "BGR"), its memory as the
    image's: channels last."""
    image = np.ascontiguousarray(image)
    return planes_of(cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channel_order == "RGB" else image)


def planes_of(image: np.ndarray) -> Tensor:
    """Return (H, W, 3) as a (3, H, W) tensor on the same memory. To copy it plane by plane takes a tenth of a sample's
    time, and the device does it as it normalises."""
    return torch.from_numpy(image).permute(2, 0, 1)


def resize_float(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (H, W, C) uint8 to float32 as torchvision's detectors do: bilinear, no averaging where it shrinks."""
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)[0]
    return resized.permute(1, 2, 0).contiguous().numpy()


def resize_and_flip(
    image: np.ndarray, width: int, height: int, flip: str = "none", *, as_float: bool = False
) -> np.ndarray:
    """Resize (H, W, 3) uint8 and flip it, the flip where there are fewer pixels; `as_float` as `resize_float`."""
    if as_float:
        return np.ascontiguousarray(np.flip(resize_float(image, width, height), AXES[flip]))
    if flip == "none":
        return resize_image(image, width, height)
    if image.shape[2] != 3:  # OpenCV would drop the axis of a single channel
        return np.ascontiguousarray(np.flip(resize_image(image, width, height), AXES[flip]))
    if width * height < image.shape[0] * image.shape[1]:
        return cv2.flip(resize_image(image, width, height), FLIPS[flip])
    return resize_image(cv2.flip(image, FLIPS[flip]), width, height)


class Mapper:
    """Maps an index of a DetectionSet to the sample of one image for training.

    Args:
        flip: at random, "horizontal", "vertical", "both" (each by a draw of its own) or "none".
        mask_format: "polygon" or "bitmask"; used where the set has segmentations.
        proposals: of the same images; added to the samples of training.
        channel_order: of `read_image`; channels: how many the images must have.
    """

    def __init__(
        self,
        images: DetectionSet,
        *,
        resize: Resize,
        channel_order: str,
        channels: int | None = None,
        flip: str = "horizontal",
        mask_format: str = "polygon",
        proposals: Proposals | None = None,
    ) -> None:
        self.images = images
        self.resize = resize
        self.channel_order = channel_order
        self.channels = channels
        self.flip = flip
        self.mask_format = mask_format
        self.given = proposals
        self.partners = flip_partners(images.keypoint_names)
        # Held here: loader processes that are started anew have registered none.
        self.transforms = registered_transforms()

    def __call__(self, index: int, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Return image (3, H, W) uint8, file_name, image_id, height and width of the file, instances and, where they
        are given, proposals. The image's memory is channels last; it is float32 where it is resized as float.
        With a generator, the transforms of `register_transform` follow.

        Raises:
            DataError: the image cannot be decoded, or is not of the size that its record says.
        """
        width, height = self.images.size(index)
        path = str(self.images.path(index))
        order = self.channel_order
        image = read_image(path, size=(width, height), channel_order=order, channels=self.channels)
        new_width, new_height = self.resize.target(width, height, self.resize.draw(rng))
        flip = _draw_flip(self.flip, rng)
        sample = {
            "image": planes_of(resize_and_flip(image, new_width, new_height, flip, as_float=self.resize.as_float)),
            "file_name": path,
            "image_id": self.images.image_ids[index].item(),
            "height": height,
            "width": width,
        }
        sample["instances"] = self.targets(index, new_width, new_height, flip)
        if self.given is not None:
            sample["proposals"] = self.proposals(index, new_width, new_height, flip)
        for transform in self.transforms if rng is not None else ():
            sample = transform(sample, rng)
        return sample

    def targets(self, index: int, width: int, height: int, flip: str) -> Instances:
        """Return ground truth of image `index`, crowds left out, in an image resized to width x height and flipped."""
        start, end = self.images.starts[index], self.images.starts[index + 1]
        rows = start + (~self.images.crowd[start:end]).nonzero()[0]
        scale = np.array([width, height]) / np.array(self.images.size(index))
        boxes = _move_boxes(self.images.boxes[rows], (height, width), scale, flip)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > LEAST_SIDE).all(axis=1)
        rows, boxes = rows[kept], boxes[kept]
        masks = None
        if self.images.segmentations is not None:
            packed = [self.images.segmentations[row] for row in rows.tolist()]
            segmentations = list(map(_drawn, orjson.loads(b"[%b]" % b",".join(packed))))
            # As in detectron2: an object without a mask would teach that its box holds nothing.
            drawn = np.array([bool(item) for item in segmentations], dtype=bool)
            rows, boxes = rows[drawn], boxes[drawn]
            masks = self._masks([item for item in segmentations if item], (height, width), scale, flip)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
        instances.gt_classes = torch.from_numpy(self.images.labels[rows])
        if masks is not None:
            instances.gt_masks = masks
        if self.images.keypoints is not None:
            points = move_keypoints(self.images.keypoints[rows], (height, width), scale, flip, self.partners)
            instances.gt_keypoints = Keypoints(torch.from_numpy(points))
        if isinstance(masks, BitMasks):  # so small a shape may cover no pixel
            instances = instances[masks.nonempty()]
        return instances

    def proposals(self, index: int, width: int, height: int, flip: str) -> Instances:
        """Return the given proposals of image `index`, placed as in `targets`, all with the same objectness."""
        scale = np.array([width, height]) / np.array(self.images.size(index))
        boxes = _move_boxes(self.given.of(index), (height, width), scale, flip)
        instances = Instances((height, width))
        instances.proposal_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
        instances.objectness_logits = torch.zeros(len(boxes))
        return instances

    def _masks(
        self, segmentations: list[Any], size: tuple[int, int], scale: np.ndarray, flip: str
    ) -> PolygonMasks | BitMasks:
        shapes = iter(_move_polygons([item for item in segmentations if isinstance(item, list)], size, scale, flip))
        moved = [next(shapes) if isinstance(item, list) else _move_rle(item, size, flip) for item in segmentations]
        if self.mask_format == "polygon" and all(isinstance(item, list) for item in moved):
            return PolygonMasks(moved)
        masks = [polygons_to_bitmask(item, *size) if isinstance(item, list) else item for item in moved]
        stacked = np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)
        return BitMasks(torch.from_numpy(stacked))


def _draw_flip(flip: str, rng: np.random.Generator | None) -> str:
    """Return the flip of one image: "none" or a key of FLIPS."""
    axes = {"none": (), "both": ("horizontal", "vertical")}.get(flip, (flip,))
    drawn = [axis for axis in axes if rng is not None and rng.random() < 0.5]
    return "both" if len(drawn) == 2 else "".join(drawn) or "none"


def _drawn(segmentation: Any) -> Any:
    """Return a segmentation without polygons of fewer than three points; an absent one is no polygon."""
    if isinstance(segmentation, dict) and segmentation:
        return segmentation
    return [polygon for polygon in segmentation or [] if len(polygon) >= 6]


def _move_boxes(boxes: np.ndarray, size: tuple[int, int], scale: np.ndarray, flip: str) -> np.ndarray:
    """Scale XYXY boxes (N, 4) by `scale` (x, y), then mirror them in an image of `size` (height, width)."""
    moved = boxes * np.concatenate([scale, scale])
    if flip in ("horizontal", "both"):
        moved[:, [0, 2]] = size[1] - moved[:, [2, 0]]
    if flip in ("vertical", "both"):
        moved[:, [1, 3]] = size[0] - moved[:, [3, 1]]
    return moved


def _move_polygons(
    objects: list[list[list[float]]], size: tuple[int, int], scale: np.ndarray, flip: str
) -> list[list[np.ndarray]]:
    """Move the polygons of all objects in one go."""
    polygons = list(chain.from_iterable(objects))
    points = np.array(list(chain.from_iterable(polygons)), dtype=np.float64).reshape(-1, 2) * scale
    if flip in ("horizontal", "both"):
        points[:, 0] = size[1] - points[:, 0]
    if flip in ("vertical", "both"):
        points[:, 1] = size[0] - points[:, 1]
    flat, ends = points.reshape(-1), np.cumsum([0, *map(len, polygons)])
    parts = iter([flat[start:end] for start, end in zip(ends[:-1], ends[1:])])
    return [[next(parts) for _ in polygons] for polygons in objects]


def _move_rle(segmentation: dict[str, Any], size: tuple[int, int], flip: str) -> np.ndarray:
    from pycocotools import mask as coco_mask

    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    mask = cv2.resize(coco_mask.decode(segmentation), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    if flip in ("horizontal", "both"):
        mask = mask[:, ::-1]
    if flip in ("vertical", "both"):
        mask = mask[::-1]
    return np.ascontiguousarray(mask).astype(bool)

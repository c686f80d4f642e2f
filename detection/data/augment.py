"""What training samples are made of beyond resizing and flipping: parts of images, several images, pasted objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, polygons_to_bitmask

from .view import Rectangle, View

# Where the four images of a mosaic meet, as a share of its sides.
MEETING = (0.25, 0.75)


@dataclass(frozen=True)
class Crop:
    """A part of the file's image, taken before it is resized; detectron2's RandomCrop.

    Attributes:
        kind, size: INPUT.CROP.TYPE and SIZE; "absolute" and "relative" sizes are height and width.
    """

    kind: str
    size: Sequence[float]

    def draw(self, width: int, height: int, rng: np.random.Generator) -> Rectangle:
        """Return a part of an image."""
        sides = np.array([height, width])
        if self.kind == "absolute":
            kept = np.minimum(self.size, sides)
        elif self.kind == "absolute_range":
            least, most = (np.minimum(bound, sides) for bound in self.size)
            kept = rng.integers(least, most + 1)
        else:
            share = np.array(self.size, dtype=np.float64)
            if self.kind == "relative_range":
                share = share + rng.random(2) * (1 - share)
            kept = np.maximum(1, (sides * share + 0.5).astype(np.int64))
        top, left = rng.integers(sides - kept + 1).tolist()
        return left, top, int(kept[1]), int(kept[0])


@dataclass(frozen=True)
class ScaleJitter:
    """An image fitted into `size` times a factor drawn from `scale`, then cut or filled up to `size`.

    Attributes:
        size: height and width of the sample.
    """

    size: tuple[int, int]
    scale: tuple[float, float]

    def draw(self, view: View, rng: np.random.Generator) -> View:
        """Return the view with its part at a drawn size, a window of it at the upper left of the canvas."""
        canvas = (self.size[1], self.size[0])
        width, height = view.part[2:]
        factor = min(canvas[0] / width, canvas[1] / height) * rng.uniform(*self.scale)
        larger = view.resized(width * factor, height * factor)
        room = tuple(min(side, least) for side, least in zip(canvas, larger.size))
        return larger.within((0, 0, *room), canvas, rng)


@dataclass(frozen=True)
class Mosaic:
    """Four images in one, each at a drawn factor of `scale` times its size, that meet at a drawn point.

    Attributes:
        least_shown: share of a box's area that must be in its tile, or the object is no target.
    """

    probability: float
    scale: tuple[float, float]
    least_shown: float

    def views(self, first: View, others: Sequence[View], rng: np.random.Generator) -> list[View]:
        """Return the views of the four images on the canvas of the first one."""
        canvas = first.canvas
        x, y = (min(max(1, round(side * rng.uniform(*MEETING))), side - 1) for side in canvas)
        tiles = [
            (left, top, right - left, bottom - top)
            for top, bottom in ((0, y), (y, canvas[1]))
            for left, right in ((0, x), (x, canvas[0]))
        ]
        scaled = []
        for view in (first, *others):
            factor = rng.uniform(*self.scale)
            scaled.append(view.resized(view.size[0] * factor, view.size[1] * factor))
        return [view.within(tile, canvas, rng, self.least_shown) for view, tile in zip(scaled, tiles)]


@dataclass(frozen=True)
class CopyPaste:
    """Objects of another image, each with the probability `share`, are pasted by their masks."""

    probability: float
    share: float


@dataclass(frozen=True)
class Augmentation:
    """What is done to training samples; None is left out.

    Attributes:
        fill: value of each channel where a canvas shows no image.
    """

    crop: Crop | None = None
    scale_jitter: ScaleJitter | None = None
    mosaic: Mosaic | None = None
    copy_paste: CopyPaste | None = None
    fill: tuple[float, ...] = ()


def augmentation_of(config: CfgNode) -> Augmentation:
    """Return what INPUT asks for."""
    inputs = config.INPUT
    crop, jitter, mosaic, paste = inputs.CROP, inputs.LARGE_SCALE_JITTER, inputs.MOSAIC, inputs.COPY_PASTE
    return Augmentation(
        Crop(crop.TYPE, tuple(crop.SIZE)) if crop.ENABLED else None,
        ScaleJitter(tuple(jitter.SIZE), tuple(jitter.SCALE)) if jitter.ENABLED else None,
        Mosaic(mosaic.PROB, tuple(mosaic.SCALE), mosaic.LEAST_SHOWN) if mosaic.ENABLED else None,
        CopyPaste(paste.PROB, paste.SHARE) if paste.ENABLED else None,
        tuple(config.MODEL.PIXEL_MEAN),
    )


def on_canvas(pixels: Sequence[np.ndarray], views: Sequence[View], fill: Sequence[float]) -> np.ndarray:
    """Lay the windows (H, W, C) of views on their canvas, whose rest has the values of `fill`."""
    if views[0].fills:
        return pixels[0]
    first = pixels[0]
    canvas = np.empty((*views[0].height_and_width, first.shape[2]), dtype=first.dtype)
    canvas[:] = np.round(fill) if first.dtype == np.uint8 else fill
    for window, view in zip(pixels, views):
        canvas[view.rows_and_columns] = window
    return canvas


def joined(parts: Sequence[Instances]) -> Instances:
    """Return the instances of all parts of one canvas; polygons become bit masks where some part has these."""
    if any(part.has("gt_masks") and isinstance(part.gt_masks, BitMasks) for part in parts):
        for part in parts:
            part.gt_masks = bit_masks(part)
    return Instances.cat(list(parts))


def bit_masks(instances: Instances) -> BitMasks:
    """Return the masks of instances as (N, H, W) bool."""
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        drawn = [polygons_to_bitmask(polygons, *instances.image_size) for polygons in masks.polygons]
        stacked = np.stack(drawn) if drawn else np.zeros((0, *instances.image_size), dtype=bool)
        masks = BitMasks(torch.from_numpy(stacked))
    return masks


def paste(
    image: np.ndarray, target: Instances, source_image: np.ndarray, source: Instances
) -> tuple[np.ndarray, Instances]:
    """Paste the objects of `source` over those of `target`.

    What they hide is cut out of the masks below, whose boxes become those of the rest; an object without a rest is
    removed, and hidden keypoints are marked as not visible.

    Args:
        image, source_image: (H, W, C) of the same canvas.

    Returns:
        A new image, and the instances of both, with bit masks.
    """
    source.gt_masks = bit_masks(source)
    over = source.gt_masks.tensor.any(dim=0)
    image = np.where(over.numpy()[:, :, None], source_image, image)
    masks = bit_masks(target).tensor
    rest = BitMasks(masks & ~over)
    partly = (masks & over).any(dim=(1, 2))
    boxes = target.gt_boxes.tensor.clone()
    boxes[partly] = rest.get_bounding_boxes().tensor[partly]
    target.gt_masks, target.gt_boxes = rest, Boxes(boxes)
    if target.has("gt_keypoints"):
        points = target.gt_keypoints.tensor
        x, y = (points[..., axis].long().clamp(0, over.shape[1 - axis] - 1) for axis in (0, 1))
        points[..., 2] = torch.where(over[y, x], points[..., 2].clamp(max=1), points[..., 2])
    return image, joined([target[rest.nonempty()], source])

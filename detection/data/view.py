"""What of an image a training sample shows, and how its boxes, masks and keypoints move with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from backbone.common.images import resize_image

# OpenCV's codes of the axes; "both" turns the image by half a circle.
FLIPS = {"vertical": 0, "horizontal": 1, "both": -1}
# numpy's axes of an (H, W, C) image.
AXES = {"none": (), "vertical": 0, "horizontal": 1, "both": (0, 1)}

# Shorter than this, in pixels of the sample, a box is no target.
LEAST_SIDE = 1e-5

Rectangle = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass(frozen=True)
class View:
    """A part of the file's image is resized and flipped; a window of that lies on a canvas, which is the sample.

    Attributes:
        file: width and height of the image in the file.
        part: of the file, what is resized.
        size: width and height to which it is.
        flip: "none", or a key of FLIPS.
        window: of the resized and flipped part, what is kept.
        place: x and y of the window on the canvas.
        canvas: width and height.
        cropped: whether the part was drawn, be it the whole file.
        least: share of a box's area that must be in the window, or the object is not shown.
    """

    file: tuple[int, int]
    part: Rectangle
    size: tuple[int, int]
    flip: str
    window: Rectangle
    place: tuple[int, int]
    canvas: tuple[int, int]
    cropped: bool = False
    least: float = 0.0

    @classmethod
    def of(
        cls, file: tuple[int, int], size: tuple[int, int], flip: str = "none", part: Rectangle | None = None
    ) -> View:
        """Return the view of a whole image, or of a part of it, that fills its canvas."""
        return cls(file, part or (0, 0, *file), size, flip, (0, 0, *size), (0, 0), size, cropped=part is not None)

    def within(self, tile: Rectangle, canvas: tuple[int, int], rng: np.random.Generator, least: float = 0.0) -> View:
        """Return the view in a tile of a canvas: where it is larger, a window of it; where smaller, somewhere there."""
        offsets, kept, place = [], [], []
        for axis in (0, 1):
            have, room = self.window[2 + axis], tile[2 + axis]
            kept.append(min(have, room))
            offsets.append(self.window[axis] + int(rng.integers(have - kept[axis] + 1)))
            place.append(tile[axis] + int(rng.integers(room - kept[axis] + 1)))
        return replace(self, window=(*offsets, *kept), place=tuple(place), canvas=canvas, least=least)

    def resized(self, width: float, height: float) -> View:
        """Return the view of the whole part at another size, rounded to at least a pixel."""
        size = (max(1, round(width)), max(1, round(height)))
        return replace(self, size=size, window=(0, 0, *size), place=(0, 0), canvas=size)

    @property
    def cuts(self) -> bool:
        """Whether something of the image may not be shown; detectron2 counts every crop as a cut."""
        return self.cropped or self.window[2:] != self.size

    @property
    def height_and_width(self) -> tuple[int, int]:
        return self.canvas[::-1]

    @property
    def fills(self) -> bool:
        """Whether the window is the whole canvas."""
        return self.window[2:] == self.canvas

    @cached_property
    def _frame(self) -> np.ndarray:
        """(3, 2) float64: what x and y are multiplied with, and the window's two corners on the canvas."""
        (x, y), (width, height), part = self.place, self.window[2:], self.part
        return np.array([(self.size[0] / part[2], self.size[1] / part[3]), (x, y), (x + width, y + height)])

    @property
    def lower(self) -> np.ndarray:
        """The window's corner with the smallest x and y, on the canvas."""
        return self._frame[1]

    @property
    def upper(self) -> np.ndarray:
        return self._frame[2]

    @property
    def rows_and_columns(self) -> tuple[slice, slice]:
        """Where the window lies on the canvas, for an array."""
        (x, y), (width, height) = self.place, self.window[2:]
        return slice(y, y + height), slice(x, x + width)

    def pixels(self, image: np.ndarray, *, as_float: bool = False) -> np.ndarray:
        """Return the window of an image (H, W, C) as the file has it; `as_float` as `resize_float`."""
        x, y, width, height = self.part
        shown = resize_and_flip(image[y : y + height, x : x + width], *self.size, self.flip, as_float=as_float)
        return self._window(shown)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Move points (..., 2) of the file, x and y, to the canvas, as float64."""
        # A sample has few numbers, so the calls are what takes time: none is made that would change nothing.
        points = np.asarray(points, np.float64)
        if self.part[0] or self.part[1]:
            points = points - self.part[:2]
        moved = points * self._frame[0]
        if self.flip != "none":
            for axis, name in enumerate(("horizontal", "vertical")):
                if self.flip in (name, "both"):
                    moved[..., axis] = self.size[axis] - moved[..., axis]
        return moved if self.place == self.window[:2] else moved + (self.lower - self.window[:2])

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Move XYXY boxes (N, 4) to the canvas and cut them to the window; outside of it they are without area."""
        corners = self.points(boxes.reshape(-1, 2, 2))
        if self.flip != "none":
            corners.sort(axis=1)
        # np.clip of so few numbers takes longer than both.
        _, lower, upper = self._frame
        return np.minimum(np.maximum(corners, lower, out=corners), upper, out=corners).reshape(-1, 4)

    def shown(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `boxes` of those that have an area in the window, and enough of theirs; and which these are, (N,)."""
        moved = self.boxes(boxes)
        sides = moved[:, 2:] - moved[:, :2]
        kept = (sides[:, 0] > LEAST_SIDE) & (sides[:, 1] > LEAST_SIDE)
        if self.least:
            whole = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
            scale = np.prod(self.size) / np.prod(self.part[2:])
            kept &= sides.prod(axis=1) >= self.least * scale * whole
        return moved[kept], kept

    def polygons(self, objects: Sequence[Sequence[np.ndarray]]) -> tuple[list[list[np.ndarray]], np.ndarray | None]:
        """Move polygons x, y, x, y, ... of all objects in one go, and cut them to the window.

        Returns:
            For each object its polygons, and (N, 4) XYXY what they cover, zeros where nothing is left; None where the
            view cuts nothing.
        """
        flat = list(chain.from_iterable(objects))
        ends = list(accumulate(map(len, flat), initial=0))
        points = np.concatenate(flat or [[]], dtype=np.float64)
        points = self.points(points.reshape(-1, 2)).reshape(-1)
        parts = iter([points[start:end] for start, end in pairwise(ends)])
        moved = [[next(parts) for _ in polygons] for polygons in objects]
        if not self.cuts:
            return moved, None
        rest, boxes = [], np.zeros((len(objects), 4))
        for row, polygons in enumerate(moved):
            pieces = [cut for polygon in polygons if len((cut := self._cut(polygon.reshape(-1, 2)))[0])]
            rest.append([piece.reshape(-1) for piece, _ in pieces])
            if pieces:
                bounding = np.concatenate([points for _, points in pieces])
                boxes[row] = (*bounding.min(axis=0), *bounding.max(axis=0))
        return rest, boxes

    def _cut(self, polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a polygon (N, 2) cut to the window, and those of its points that bound what is left."""
        piece = cut_polygon(polygon, self.lower, self.upper)
        if not len(piece) or not (np.ptp(piece, axis=0) > 0).all():
            return piece[:0], piece[:0]
        # A polygon that goes around a corner of the window is cut along the border, through that corner.
        at_corner = (np.equal(piece, self.lower) | np.equal(piece, self.upper)).all(axis=1)
        contour = polygon.astype(np.float32)
        outside = [corner and not _is_inside(point, contour) for corner, point in zip(at_corner, piece)]
        return piece, piece[~np.array(outside, dtype=bool)]

    def mask(self, run_lengths: dict[str, Any]) -> np.ndarray:
        """Return run lengths of the file as a mask of the canvas, (H, W) bool."""
        from pycocotools import mask as coco_mask

        if isinstance(run_lengths["counts"], list):
            run_lengths = coco_mask.frPyObjects(run_lengths, *run_lengths["size"])
        x, y, width, height = self.part
        part = coco_mask.decode(run_lengths)[y : y + height, x : x + width]
        resized = cv2.resize(part, self.size, interpolation=cv2.INTER_NEAREST_EXACT)
        shown = self._window(np.flip(resized, AXES[self.flip])).astype(bool)
        if self.fills:
            return shown
        mask = np.zeros(self.height_and_width, dtype=bool)
        mask[self.rows_and_columns] = shown
        return mask

    def _window(self, image: np.ndarray) -> np.ndarray:
        x, y, width, height = self.window
        # A copy where something is left out: loader processes would hand on the memory of the whole.
        return np.ascontiguousarray(image[y : y + height, x : x + width])


def _is_inside(point: np.ndarray, contour: np.ndarray) -> bool:
    return cv2.pointPolygonTest(contour, point.tolist(), False) >= 0


def cut_polygon(points: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Cut a polygon (N, 2) to the rectangle between two corners, side by side (Sutherland and Hodgman, 1974).

    Pieces of a polygon that falls apart stay joined along the border, by lines without area.
    """
    for axis in (0, 1):
        for sign, bound in ((1, lower[axis]), (-1, upper[axis])):
            depth = sign * (points[:, axis] - bound)
            inside = depth >= 0
            if inside.all():
                continue
            if not inside.any():
                return points[:0]
            following, depth_there, inside_there = (np.roll(of, -1, axis=0) for of in (points, depth, inside))
            crosses = inside != inside_there
            share = np.divide(depth, depth - depth_there, out=np.zeros_like(depth), where=crosses)
            crossings = points + share[:, None] * (following - points)
            crossings[:, axis] = bound
            # After each point, where its edge crosses the side, and then its end.
            candidates = np.stack([crossings, following], axis=1).reshape(-1, 2)
            points = candidates[np.stack([crosses, inside_there], axis=1).reshape(-1)]
    return points


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

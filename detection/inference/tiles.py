"""Large images in tiles: each is detected on as an image of its own, and what two tiles see of one object is merged.

Two boxes of one class from two tiles are one object where they overlap by half or more: as IoU within the area that
both tiles see, or as the share of the smaller box. The best pairs are joined first, and no two boxes of one tile are:
the detector's own NMS has decided on these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from backbone import ConfigError

from .mask_crops import Crop, MaskCrops, crop_of
from .pipeline import detect_in_batches, in_order
from .transform import TestTransform

# Of a tile, that each neighbour sees too: an object up to this long is whole in one of them.
OVERLAP = 0.2
LEAST_OVERLAP = 0.5
# Within this share of a tile from its border, a box is taken for cut off by it.
BORDER = 0.01
# The key of a sample's image as it was, where it is larger than a tile.
WHOLE = "whole"
Tile = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tiling:
    """Tiles of `size` pixels a side, neighbours sharing `overlap` of it.

    Raises:
        ConfigError: a value that cannot be.
    """

    size: int
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ConfigError(f"--tile must be 16 pixels or more, not {self.size}")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"--overlap must be 0 to 0.9, a share of the tile, not {self.overlap}")

    def tiles(self, width: int, height: int) -> list[Tile]:
        """Return (x0, y0, x1, y1) of each tile, row by row; the last ones end at the image's border."""
        columns, rows = self._starts(width), self._starts(height)
        return [(x, y, min(x + self.size, width), min(y + self.size, height)) for y in rows for x in columns]

    def _starts(self, length: int) -> list[int]:
        last = max(0, length - self.size)
        return [*range(0, last, max(1, self.size - int(self.size * self.overlap))), last]


class TiledModel(nn.Module):
    """Stands where a detector would: takes samples of its `sample`, and returns what is found on the whole images.

    Args:
        model: as `run_pipeline` takes it.
        channel_order: of the images.
        batch_size: tiles of one shape that go through `model` together.
    """

    def __init__(
        self, model: nn.Module, transform: TestTransform, tiling: Tiling, channel_order: str, batch_size: int
    ) -> None:
        super().__init__()
        self.model = model
        self.transform, self.tiling, self.order, self.batch_size = transform, tiling, channel_order, batch_size

    def sample(self, image: np.ndarray, channel_order: str) -> dict[str, Any]:
        """Return the sample of `TestTransform`; of an image (H, W, C) that is larger than a tile, the image itself."""
        height, width = image.shape[:2]
        if max(height, width) <= self.tiling.size:
            return self.transform(image, channel_order)
        # Each tile is resized when its turn comes: all of them at once might not fit into memory.
        return {"image": torch.empty(0), WHOLE: image, "height": height, "width": width}

    def forward(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        """Detect on samples of one shape, which are all larger than a tile, or none is."""
        if WHOLE not in samples[0]:
            return self.model(samples)
        return [{"instances": self._detect(sample[WHOLE])} for sample in samples]

    def _detect(self, image: np.ndarray) -> Instances:
        height, width = image.shape[:2]
        tiles = self.tiling.tiles(width, height)

        def sample(tile: Tile) -> dict[str, Any]:
            x0, y0, x1, y1 = tile
            return self.transform(np.ascontiguousarray(image[y0:y1, x0:x1]), self.order)

        samples = in_order(sample, tiles, threads=1, ahead=2 * self.batch_size)
        found = detect_in_batches(self.model, samples, lambda sample: sample, batch_size=self.batch_size)
        return merged(list(_small(found, tiles)), tiles, (height, width))


def _small(found: Iterator[tuple[Any, Instances]], tiles: list[Tile]) -> Iterator[Instances]:
    """Yield the detections of each tile, with masks as crops: as many whole ones as an image has fill the memory."""
    for tile, (_, instances) in zip(tiles, found):
        instances = instances.to("cpu")
        if instances.has("pred_masks"):
            masks = instances.pred_masks.numpy()
            instances.remove("pred_masks")
            crops = [[crop_of(mask, tile[:2])] for mask in masks]
            instances.pred_masks = MaskCrops(crops, (tile[3] - tile[1], tile[2] - tile[0]))
        yield instances


def merged(found: Sequence[Instances], tiles: Sequence[Tile], size: tuple[int, int]) -> Instances:
    """Return the objects of an image, the surest first.

    Where a tile sees an object whole, the box, mask and keypoints are the surest such tile's; else the box is around
    those of all tiles, and the mask all of theirs. The score is the highest.

    Args:
        found: on each tile, in its pixels; masks as MaskCrops in pixels of the image.
        size: (height, width) of the image.
    """
    of_tile = np.repeat(np.arange(len(tiles)), [len(instances) for instances in found])
    corners = np.array(tiles, np.float32).reshape(-1, 4)[of_tile]
    boxes = np.concatenate([instances.pred_boxes.tensor.numpy() for instances in found]) + np.tile(corners[:, :2], 2)
    scores = np.concatenate([instances.scores.numpy() for instances in found])
    labels = np.concatenate([instances.pred_classes.numpy() for instances in found])
    groups = grouped(boxes, labels, scores, of_tile, corners)
    whole = ~_is_cut(boxes, corners, size)
    # Of each object, the boxes that make it: the surest whole one, or all.
    parts = [next(([row] for row in group if whole[row]), group) for group in groups]
    result = Instances(size)
    joined = [np.concatenate([boxes[rows, :2].min(axis=0), boxes[rows, 2:].max(axis=0)]) for rows in parts]
    result.pred_boxes = Boxes(torch.from_numpy(np.array(joined, np.float32).reshape(-1, 4)))
    first = np.array([group[0] for group in groups], np.int64)
    result.scores, result.pred_classes = torch.from_numpy(scores[first]), torch.from_numpy(labels[first])
    if all(instances.has("pred_masks") for instances in found):
        crops: list[Crop] = [crop for instances in found for (crop,) in instances.pred_masks.crops]
        result.pred_masks = MaskCrops([[crops[row] for row in rows] for rows in parts], size)
    if all(instances.has("pred_keypoints") for instances in found):
        points = np.concatenate([instances.pred_keypoints.numpy() for instances in found])
        points[:, :, :2] += corners[:, None, :2]
        result.pred_keypoints = torch.from_numpy(_surest_points(points, parts))
    return result


def grouped(
    boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, of_tile: np.ndarray, corners: np.ndarray
) -> list[list[int]]:
    """Return the rows that are one object, the surest first; see the module's text.

    Args:
        boxes: (N, 4) XYXY in pixels of the image; `corners` (N, 4) those of its tile, whose number is `of_tile` (N,).
    """
    pairs = sorted(_pairs(boxes, labels, of_tile, corners), key=lambda pair: (-pair[0], pair[1:]))
    group_of = list(range(len(boxes)))
    members = {row: [row] for row in group_of}
    for _, one, other in pairs:
        kept, gone = group_of[one], group_of[other]
        if kept != gone and {of_tile[row] for row in members[kept]}.isdisjoint(of_tile[row] for row in members[gone]):
            for row in members.pop(gone):
                group_of[row] = kept
                members[kept].append(row)

    def surest(row: int) -> tuple[float, int]:
        return (-float(scores[row]), row)

    return sorted((sorted(group, key=surest) for group in members.values()), key=lambda group: surest(group[0]))


def _pairs(
    boxes: np.ndarray, labels: np.ndarray, of_tile: np.ndarray, corners: np.ndarray
) -> Iterator[tuple[float, int, int]]:
    """Yield overlap and rows of boxes that may be one object."""
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        for place, row in enumerate(rows[:-1]):
            others = rows[place + 1 :]
            others = others[of_tile[others] != of_tile[row]]
            shared = _intersection(boxes[row], boxes[others])
            both = _area(shared)
            zone = _intersection(corners[row], corners[others])
            one, two = _area(_intersection(boxes[row], zone)), _area(_intersection(boxes[others], zone))
            in_zone = both / np.maximum(one + two - both, 1e-9)
            of_smaller = both / np.maximum(np.minimum(_area(boxes[row]), _area(boxes[others])), 1e-9)
            for other, overlap, share in zip(others.tolist(), in_zone.tolist(), of_smaller.tolist()):
                if max(overlap, share) >= LEAST_OVERLAP:
                    yield overlap, int(row), other


def _intersection(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])], axis=-1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def _is_cut(boxes: np.ndarray, corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (N,) whether a box ends at a side of its tile that is not the image's."""
    near = BORDER * (corners[:, 2:] - corners[:, :2]) + 1
    image = np.array(size[::-1], np.float32)
    low = (boxes[:, :2] <= corners[:, :2] + near) & (corners[:, :2] > 0)
    high = (boxes[:, 2:] >= corners[:, 2:] - near) & (corners[:, 2:] < image)
    return (low | high).any(axis=1)


def _surest_points(points: np.ndarray, parts: list[list[int]]) -> np.ndarray:
    """Return (len(parts), K, 3): each keypoint from the member that is surest of it."""
    chosen = [points[rows][points[rows][:, :, 2].argmax(axis=0), np.arange(points.shape[1])] for rows in parts]
    return np.array(chosen, points.dtype).reshape(-1, *points.shape[1:])


def with_tiles(
    model: nn.Module, transform: TestTransform, tiling: Tiling | None, channel_order: str, batch_size: int
) -> tuple[nn.Module, Callable[[np.ndarray, str], dict[str, Any]]]:
    """Return a detector and what makes its samples: those given, or with tiles around them."""
    if tiling is None:
        return model, transform
    tiled = TiledModel(model, transform, tiling, channel_order, batch_size)
    return tiled, tiled.sample

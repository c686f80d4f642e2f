"""From an image and its annotations to what detectron2's models take: decoded, resized, flipped, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, polygons_to_bitmask
from torch import Tensor

from backbone.common.errors import ConfigError
from backbone.common.images import read_image

from .augment import Augmentation, joined, on_canvas, paste
from .keypoints import flip_partners, move_keypoints
from .proposals import Proposals
from .sets import DetectionSet
from .transforms import Transform, prepared, registered_transforms
from .view import LEAST_SIDE, View


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
        return self.sizes[rng.integers(len(self.sizes))]  # what rng.choice does, without an array of the sizes

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


class Mapper:
    """Maps an index of a DetectionSet to the sample of one image for training.

    Args:
        flip: at random, "horizontal", "vertical", "both" (each by a draw of its own) or "none".
        mask_format: "polygon" or "bitmask"; used where the set has segmentations.
        proposals: of the same images; added to the samples of training.
        channel_order: of `read_image`; channels: how many the images must have.
        augmentation: what is done where a generator draws; the further images that it takes are of `others`.
        transforms: called on each sample of training, behind all else and before those of `register_transform`.
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
        augmentation: Augmentation | None = None,
        others: Sequence[int] = (),
        transforms: Sequence[Transform] = (),
    ) -> None:
        self.images = images
        self.resize = resize
        self.channel_order = channel_order
        self.channels = channels
        self.flip = flip
        self.mask_format = mask_format
        self.given = proposals
        self.partners = flip_partners(images.keypoint_names)
        self.augmentation = augmentation or Augmentation()
        self.others = np.asarray(others)
        # Held here: loader processes that are started anew have registered none.
        self.transforms = [prepared(of, channel_order) for of in (*transforms, *registered_transforms())]

    def __call__(self, index: int, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Return image (3, H, W) uint8, file_name, image_id, height and width of the file, instances and, where they
        are given, proposals. The image's memory is channels last; it is float32 where it is resized as float.
        With a generator, the augmentation and the transforms follow.

        Raises:
            DataError: an image cannot be decoded, or is not of the size that its record says.
            ConfigError: a transform does not return a sample.
        """
        augmentation = self.augmentation if rng is not None else Augmentation()
        indices, views = [index], [self.view(index, rng)]
        mosaic, copying = augmentation.mosaic, augmentation.copy_paste
        if mosaic and rng.random() < mosaic.probability and min(views[0].canvas) > 1:
            indices += [self._another(rng) for _ in range(3)]
            views = mosaic.views(views[0], [self.view(other, rng) for other in indices[1:]], rng)
        image, instances = self._shown(indices, views)
        if copying and rng.random() < copying.probability:
            image, instances = self._pasted(image, instances, copying.share, rng)
        width, height = self.images.size(index)
        sample = {
            "image": planes_of(image),
            "file_name": str(self.images.path(index)),
            "image_id": self.images.image_ids[index].item(),
            "height": height,
            "width": width,
            "instances": instances,
        }
        if self.given is not None:
            sample["proposals"] = Instances.cat([self.proposals(of, view) for of, view in zip(indices, views)])
        for transform in self.transforms if rng is not None else ():
            sample = transform(sample, rng)
            if not isinstance(sample, dict) or not {"image", "instances"} <= sample.keys():
                raise ConfigError(
                    f"the transform {getattr(transform, '__qualname__', transform)!r:.80} returned "
                    f"{type(sample).__name__}; it must return the sample, a dict with its image and instances"
                )
        return sample

    def view(self, index: int, rng: np.random.Generator | None) -> View:
        """Draw what is shown of an image: the part, its size, the flip."""
        size, augmentation = self.images.size(index), self.augmentation
        part = augmentation.crop.draw(*size, rng) if augmentation.crop and rng is not None else None
        jitter = augmentation.scale_jitter if rng is not None else None
        shown = size if part is None else part[2:]
        target = shown if jitter else self.resize.target(*shown, self.resize.draw(rng))
        view = View.of(size, target, _draw_flip(self.flip, rng), part)
        return jitter.draw(view, rng) if jitter else view

    def _another(self, rng: np.random.Generator) -> int:
        return int(self.others[rng.integers(len(self.others))])

    def _shown(self, indices: Sequence[int], views: Sequence[View]) -> tuple[np.ndarray, Instances]:
        """Return the canvas of some views, and what is on it."""
        pixels = []
        for index, view in zip(indices, views):
            path, order = str(self.images.path(index)), self.channel_order
            image = read_image(path, size=view.file, channel_order=order, channels=self.channels)
            pixels.append(view.pixels(image, as_float=self.resize.as_float))
        instances = joined([self.targets(index, view) for index, view in zip(indices, views)])
        return on_canvas(pixels, views, self.augmentation.fill), instances

    def _pasted(
        self, image: np.ndarray, target: Instances, share: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, Instances]:
        index, canvas = self._another(rng), (image.shape[1], image.shape[0])
        view = self.view(index, rng).within((0, 0, *canvas), canvas, rng)
        other, source = self._shown([index], [view])
        source = source[torch.from_numpy(rng.random(len(source)) < share)]
        return paste(image, target, other, source) if len(source) else (image, target)

    def targets(self, index: int, view: View) -> Instances:
        """Return ground truth of image `index`, crowds left out, as a view shows it.

        Where it cuts an object with a mask, the box is that of the rest of the mask.
        """
        start, end = self.images.starts[index], self.images.starts[index + 1]
        rows = start + (~self.images.crowd[start:end]).nonzero()[0]
        boxes, kept = view.shown(self.images.boxes[rows])
        rows = rows[kept]
        masks = None
        if self.images.segmentations is not None:
            given = self.images.segmentations.between(start, end)
            segmentations = [given[row] for row in (rows - start).tolist()]
            if not all(segmentations):
                # As in detectron2: an object without a mask would teach that its box holds nothing.
                drawn = np.array([bool(item) for item in segmentations], dtype=bool)
                rows, boxes = rows[drawn], boxes[drawn]
                segmentations = [item for item in segmentations if item]
            masks, bounds = self._masks(segmentations, view)
            boxes = bounds if view.cuts else boxes
        fields = {
            "gt_boxes": Boxes(torch.from_numpy(boxes.astype(np.float32))),
            "gt_classes": torch.from_numpy(self.images.labels[rows]),
        }
        if masks is not None:
            fields["gt_masks"] = masks
        if self.images.keypoints is not None:
            points = move_keypoints(self.images.keypoints[rows], view, self.partners)
            fields["gt_keypoints"] = Keypoints(torch.from_numpy(points))
        instances = Instances(view.height_and_width)
        instances.get_fields().update(fields)  # all of one length: `set` would compare each with the first
        if isinstance(masks, BitMasks):  # so small a shape may cover no pixel
            return instances[masks.nonempty()]
        # Polygons may leave the window where their box does not.
        return instances[instances.gt_boxes.nonempty(LEAST_SIDE)] if view.cuts else instances

    def proposals(self, index: int, view: View) -> Instances:
        """Return the given proposals of image `index` that a view shows, all with the same objectness."""
        given = self.given.of(index)
        boxes = view.shown(given)[0] if view.cuts else view.boxes(given)
        instances = Instances(view.height_and_width)
        instances.proposal_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
        instances.objectness_logits = torch.zeros(len(boxes))
        return instances

    def _masks(self, segmentations: list[Any], view: View) -> tuple[PolygonMasks | BitMasks, np.ndarray | None]:
        """Return the masks of a view, and, where it cuts them, the boxes (N, 4) that they cover."""
        polygons, bounds = view.polygons([item for item in segmentations if isinstance(item, list)])
        if self.mask_format == "polygon" and len(polygons) == len(segmentations):
            return PolygonMasks(polygons) if view.cuts else _whole_polygons(polygons), bounds
        shapes, size = iter(polygons), view.height_and_width
        masks = [
            polygons_to_bitmask(next(shapes), *size) if isinstance(item, list) else view.mask(item)
            for item in segmentations
        ]
        stacked = BitMasks(torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)))
        return stacked, stacked.get_bounding_boxes().tensor.numpy() if view.cuts else None


def _draw_flip(flip: str, rng: np.random.Generator | None) -> str:
    """Return the flip of one image: "none" or a key of FLIPS."""
    axes = {"none": (), "both": ("horizontal", "vertical")}.get(flip, (flip,))
    drawn = [axis for axis in axes if rng is not None and rng.random() < 0.5]
    return "both" if len(drawn) == 2 else "".join(drawn) or "none"


def _whole_polygons(polygons: list[list[np.ndarray]]) -> PolygonMasks:
    """Return PolygonMasks without its checks and copies, a tenth of the time of a target: these are float64 arrays
    already, each with an even number of values, as the check of the data saw, and six or more."""
    masks = PolygonMasks.__new__(PolygonMasks)
    masks.polygons = polygons
    return masks

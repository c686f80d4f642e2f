"""One network on one image: proposals, and predictions for regions, over one scale or several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from .network import Maps, Network, append_image
from .predictions import RegionScores, flip_boxes, scale_boxes

CANONICAL_AREA = 224 * 224  # pixels of a region in ImageNet's training, which the classifier is used to


def nearest_scales(areas: Tensor) -> Tensor:
    """Return (R, 2): for each region, the two scales at which its area is nearest to 224 x 224 pixels.

    Areas grow with the scale, so the two are adjacent. Of two equally near, the smaller comes first.

    Args:
        areas: (R, S) pixels of each region at each of S scales, smaller scales first.
    """
    return (areas - CANONICAL_AREA).abs().argsort(dim=1, stable=True)[:, :2]


class Reader:
    """All boxes go in and come out in the pixels of `image`, whether it is flipped and resized for the network or not.

    Args:
        image: (3, H, W) in 0..255; proposals come from it.
        pyramid: the same at growing scales, where regions are pooled from two scales each; [] for one scale.
        flipped: show the network the image turned left to right.
    """

    def __init__(self, network: Network, image: Tensor, pyramid: Sequence[Tensor] = (), *, flipped: bool) -> None:
        self.network = network
        self.image = image
        self.pyramid = pyramid
        self.flipped = flipped
        self.size = (image.shape[-2], image.shape[-1])

    def _maps_of(self, image: Tensor) -> Maps:
        return self.network.maps(image.flip(-1) if self.flipped else image)

    @cached_property
    def _maps(self) -> Maps:
        return self._maps_of(self.image)

    @cached_property
    def _levels(self) -> list[Maps]:
        return [self._maps if scaled is self.image else self._maps_of(scaled) for scaled in self.pyramid]

    def _turn(self, boxes: Tensor) -> Tensor:
        return flip_boxes(boxes, self.size[1]) if self.flipped else boxes

    def proposals(self) -> Tensor:
        """Return the RPN's proposals (R, 4)."""
        return self._turn(self.network.proposals(self._maps))

    def score(self, boxes: Tensor) -> RegionScores:
        """Return the predictions for boxes (R, 4)."""
        turned = self._turn(boxes)
        regions = self._pool(turned)
        if self.network.has_context:
            whole = turned.new_tensor([[0.0, 0.0, self.size[1], self.size[0]]])
            regions = append_image(regions, self._pool(whole))
        found = self.network.predict(regions, turned)
        return RegionScores(found.scores, self._turn(found.boxes))

    def _pool(self, boxes: Tensor) -> Tensor:
        if not self.pyramid:
            return self.network.pool(self._maps, boxes)
        return self._pool_from_two(boxes)

    def _pool_from_two(self, boxes: Tensor) -> Tensor:
        """Pool each box at two scales and take the element-wise maximum of its two features ("maxout").

        The maximum is taken behind the per-region layers (conv5 and its global pooling, or fc6 and fc7), before the
        sibling layers. The whole image, where it is context, is a region like the others.
        """
        scaled = [scale_boxes(boxes, self.size, maps.size) for maps in self._levels]
        areas = torch.stack([(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in scaled], dim=1)
        chosen = nearest_scales(areas)
        merged: Tensor | None = None
        for level, maps in enumerate(self._levels):
            rows = (chosen == level).any(1).nonzero()[:, 0]
            if not len(rows):
                continue
            pooled = self.network.pool(maps, scaled[level][rows])
            if merged is None:
                merged = pooled.new_full((len(boxes), pooled.shape[1]), -torch.inf)
            merged[rows] = torch.maximum(merged[rows], pooled)
        return merged if merged is not None else self.network.pool(self._maps, boxes)

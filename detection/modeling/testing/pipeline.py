"""The steps of a test, in their order: proposals, predictions, refinement, union, selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from .methods import Methods
from .network import Network
from .predictions import RegionScores, average, flip_boxes, join, regressed_boxes, scale_boxes
from .reader import Reader
from .selection import select


@dataclass(frozen=True)
class Frame:
    """An image that proposals come from, with the pixels that boxes are in until they are joined.

    Attributes:
        image: (3, H, W) in 0..255.
        pyramid: the image at the scales of maxout, growing; [] without it.
        mirrored: the whole frame is the image turned left to right, for the union with its detections.
    """

    image: Tensor
    pyramid: list[Tensor] = field(default_factory=list)
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return (self.image.shape[-2], self.image.shape[-1])


class Pipeline(nn.Module):
    """A detector, or an ensemble of them, as it is tested; stands where detectron2's model would.

    - Proposals: those of every network, on the image and (flip) on its mirror image; their union.
    - Predictions: each network, and each of the two images, scores all proposals; probabilities and boxes are averaged.
      Over several scales (maxout), each region is pooled at two of them, see `Reader`.
    - Box refinement: the regressed boxes are regions in their turn; both sets of predictions are joined.
    - Union: the steps above on the image at each of several sizes; all predictions are joined.
    - Selection: NMS or Soft-NMS, then box voting.

    Masks come from the first network, on the final boxes in the image as it is.
    """

    def __init__(self, networks: Sequence[Network], methods: Methods) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.methods = methods

    @torch.no_grad()
    def forward(self, samples: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detect on images, one after the other.

        Args:
            samples: dicts with `image` (3, H, W) in 0..255, `height` and `width` of the file and, where a method needs
                other sizes, `views`: {shorter side: the image at that size}.

        Returns:
            {"instances": detections in pixels of the file} for each.
        """
        return [{"instances": self._detect(sample)} for sample in samples]

    def _detect(self, sample: dict[str, Any]) -> Instances:
        image = sample["image"]
        size = (image.shape[-2], image.shape[-1])
        found = join([_to_size(self._predict(frame), frame, size) for frame in self._frames(sample)])
        instances = self.networks[0].add_masks(image, select(found, size, self.methods))
        return detector_postprocess(instances, sample.get("height", size[0]), sample.get("width", size[1]))

    def _frames(self, sample: dict[str, Any]) -> list[Frame]:
        views, methods = sample.get("views", {}), self.methods
        if not methods.union_sides:
            return [Frame(sample["image"], [views[side] for side in methods.sides])]
        frames = [Frame(views[side]) for side in methods.union_sides]
        mirrored = [Frame(frame.image.flip(-1), mirrored=True) for frame in frames if methods.union_flip]
        return frames + mirrored

    def _predict(self, frame: Frame) -> RegionScores:
        readers = [
            Reader(network, frame.image, frame.pyramid, flipped=flipped)
            for network in self.networks
            for flipped in ((False, True) if self.methods.flip else (False,))
        ]
        proposals = torch.cat([reader.proposals() for reader in readers])
        first = average([reader.score(proposals) for reader in readers])
        if not self.methods.refine:
            return first
        refined = regressed_boxes(first, frame.size)
        return join([first, average([reader.score(refined) for reader in readers])])


def _to_size(found: RegionScores, frame: Frame, size: tuple[int, int]) -> RegionScores:
    """Return the predictions with their boxes in pixels of the unmirrored image of another size."""
    boxes = flip_boxes(found.boxes, frame.size[1]) if frame.mirrored else found.boxes
    return RegionScores(found.scores, scale_boxes(boxes, frame.size, size))

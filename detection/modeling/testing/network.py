"""One detector, taken apart: its feature maps, proposals, features of regions, and predictions from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ..box_losses import class_probabilities
from ..layers import layers_of
from .predictions import RegionScores


@dataclass(frozen=True)
class Maps:
    """Feature maps of one image."""

    images: ImageList
    features: dict[str, Tensor]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, without its padding."""
        return self.images.image_sizes[0]


class Network(nn.Module):
    """A detector of the ensemble.

    Args:
        reverse_channels: it was trained on images of the other channel order than those it will be given.
    """

    def __init__(self, model: GeneralizedRCNN, *, reverse_channels: bool = False) -> None:
        super().__init__()
        self.model = model
        self.reverse_channels = reverse_channels

    @property
    def has_context(self) -> bool:
        return getattr(self.model.roi_heads, "global_context", False)

    def maps(self, image: Tensor) -> Maps:
        """Run the backbone on an image (3, H, W) in 0..255."""
        image = image.flip(0) if self.reverse_channels else image
        images = self.model.preprocess_image([{"image": image}])
        return Maps(images, self.model.backbone(images.tensor))

    def proposals(self, maps: Maps) -> Tensor:
        """Return the RPN's proposals (R, 4), best first, in the image's pixels."""
        return self.model.proposal_generator(maps.images, maps.features, None)[0][0].proposal_boxes.tensor

    def pool(self, maps: Maps, boxes: Tensor) -> Tensor:
        """Return the features (R, D) of boxes (R, 4): pooled and through the per-region layers, without context."""
        heads = self.model.roi_heads
        return layers_of(heads).region_features(heads, maps.features, [Boxes(boxes)])

    def predict(self, regions: Tensor, boxes: Tensor) -> RegionScores:
        """Run the sibling layers on the features of boxes (R, 4), the context appended where there is one."""
        layers = self.model.roi_heads.box_predictor
        logits, deltas = layers(regions)
        regressed = layers.box2box_transform.apply_deltas(deltas, boxes)
        classes = logits.shape[1] - 1
        return RegionScores(
            class_probabilities(layers, logits), regressed.view(len(boxes), -1, 4).expand(-1, classes, -1)
        )

    def add_masks(self, image: Tensor, instances: Instances) -> Instances:
        """Run the mask head and the keypoint head, where there are any, on the final boxes."""
        if not any(getattr(self.model.roi_heads, switch, False) for switch in ("mask_on", "keypoint_on")):
            return instances
        return self.model.roi_heads.forward_with_given_boxes(self.maps(image).features, [instances])[0]


def append_image(regions: Tensor, context: Tensor) -> Tensor:
    """Return features (R, 2D): each region's, then the image's (1, D)."""
    return torch.cat([regions, context.expand(len(regions), -1)], dim=1)

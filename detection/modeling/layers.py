"""The layers that heads run on regions: ours say so themselves, detectron2's are listed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads
from detectron2.structures import Boxes
from torch import Tensor, nn

from backbone import ConfigError
from backbone.networks.norm import EPS
from backbone.weights.layouts.base import renamed
from backbone.weights.layouts.detectron2 import WRITE

# A module, and what a backbone's weights hold of it.
Part = tuple[nn.Module, dict[str, Tensor]]


class PooledLayers:
    """Regions are pooled for each head of its own: box head, mask head. To stand before StandardROIHeads."""

    def region_features(self, features: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """Return the features (R, D) of all images' boxes before the sibling layers, without context.

        A pyramid's level follows from the box's size (Eq. 1 of FPN); the whole image is pooled from the coarsest.
        """
        pooled = self.box_pooler([features[name] for name in self.box_in_features], boxes)
        return self.box_head(pooled).flatten(1)

    def mask_features(self, features: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """Return what the mask head takes (R, C, h, w) of all images' boxes."""
        return self.mask_pooler([features[name] for name in self.mask_in_features], boxes)

    def pretrained_parts(self, tensors: Mapping[str, Tensor], last_stage: str) -> list[Part]:
        """Return the parts of the head that a backbone's weights fill.

        Args:
            tensors: those that the backbone itself has no place for, by our names.
            last_stage: name of the network's last stage, such as layer4.
        """
        return []


class LastStageLayers:
    """One pooling, and the network's last stage on each region for all heads. To stand before Res5ROIHeads."""

    def mask_features(self, features: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """Return the last stage's maps (R, C, h, w) of all images' boxes."""
        return self.res5(self.pooler([features[name] for name in self.in_features], boxes))

    def region_features(self, features: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """Return the features (R, D) of all images' boxes before the sibling layers, without context."""
        return self.mask_features(features, boxes).mean(dim=[2, 3])

    def pretrained_parts(self, tensors: Mapping[str, Tensor], last_stage: str) -> list[Part]:
        """See `PooledLayers.pretrained_parts`."""
        return [(self.res5, below(tensors, last_stage))]


def below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of the module `name`, by their names inside it."""
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}


class _Res5Layers(LastStageLayers):
    """Of detectron2's own Res5ROIHeads, whose stage has detectron2's names."""

    def pretrained_parts(self, tensors: Mapping[str, Tensor], last_stage: str) -> list[Part]:
        of_stage = {key: value for key, value in tensors.items() if key.startswith(f"{last_stage}.")}
        return [(self.res5, below(renamed(of_stage, WRITE), "res5"))]


def layers_of(heads: nn.Module) -> type:
    """Return the class whose functions tell the layers of `heads`: its own, or for detectron2's one of the above.

    Raises:
        ConfigError: these heads are others.
    """
    if hasattr(heads, "region_features"):
        return type(heads)
    for kind, layers in ((Res5ROIHeads, _Res5Layers), (StandardROIHeads, PooledLayers)):
        if isinstance(heads, kind):
            return layers
    raise ConfigError(
        f"{type(heads).__name__} does not say what it runs on regions; "
        "give it region_features, mask_features and pretrained_parts, as detection.modeling.layers has them"
    )


def set_norm_eps(module: nn.Module, config: CfgNode) -> None:
    """Give the norms with running moments MODEL.BACKBONE.NORM_EPS, which detectron2's own configs do not have."""
    eps = config.MODEL.BACKBONE.get("NORM_EPS", EPS)
    for layer in module.modules():
        if eps != EPS and hasattr(layer, "running_var"):
            # torch's norms want one above 0; beside a variance in float32 it is none.
            layer.eps = max(eps, 1e-12)

"""A network with the interface of `timm.create_model(..., features_only=True)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..common.errors import ArchitectureError
from ..networks import Backbone, FoldedBackbone
from .inside import as_network, in_network_order, network_of, require, set_outputs


class TimmFeatures(nn.Module):
    """What `timm_features` returns: a list of feature maps out, as of timm's FeatureListNet.

    Attributes:
        network: ours.
        feature_info: timm's FeatureInfo: `channels()`, `reduction()` (stride) and `module_name()` of the chosen levels,
            in order of depth.
    """

    def __init__(self, network: Backbone | FoldedBackbone, out_indices: Sequence[int] | int | None) -> None:
        super().__init__()
        require("timm", "backbone.adapters.timm_features")
        from timm.models import FeatureInfo

        self.network = network
        levels = _levels(network_of(network))
        indices = _indices(network.architecture, len(levels), out_indices)
        self.feature_info = FeatureInfo(levels, indices)
        self.keeps_stem = levels[0]["stage"] is None and 0 in indices
        stages = [levels[index]["stage"] for index in indices if levels[index]["stage"]]
        # Alone, the level in the middle of the stem needs the stem to run.
        set_outputs(network, stages or ["stem"])

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm.data.resolve_model_data_config reads: mean and std of RGB images 0..1, and their usual size."""
        size = network_of(self.network).table.image_size
        values: dict[str, Any] = {
            "architecture": self.network.architecture,
            "input_size": (network_of(self.network).in_chans, size, size),
        }
        preprocessing = network_of(self.network).preprocessing
        if preprocessing is not None:
            numbers = preprocessing.converted(channel_order="RGB", value_range=1)
            values |= {"mean": numbers.mean, "std": numbers.std}
        return values

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of blocks alone in training; see `checkpointing` of `backbone.create`."""
        network_of(self.network).checkpointing = enable

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the chosen levels.

        Args:
            images: (N, 3, H, W), RGB, normalised with mean and std of `pretrained_cfg`.

        Returns:
            (N, channels, H / reduction, W / reduction) of each level, in order of depth.
        """
        images = in_network_order(images, self.network)
        if not self.keeps_stem:
            return list(self.network(images).values())
        kept: list[Tensor] = []
        # For this call alone: a hook that stayed would be shared with copies of the module.
        pool = network_of(self.network).maxpool
        hook = pool.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            features = self.network(images)
        finally:
            hook.remove()
        return kept + [feature for stage, feature in features.items() if stage != "stem"]


def timm_features(
    network: Backbone | FoldedBackbone | str, *, out_indices: Sequence[int] | int | None = None, **keywords
) -> TimmFeatures:
    """Give a network timm's `features_only` interface, with timm's numbering of the levels.

    Of a ResNet, level 0 is the stem before its pooling (stride 2), 1 to 4 are res2 (4) to res5 (32). Networks without
    that pooling (CIFAR, VGG) have their stages in order of depth.

    Args:
        network: one of `backbone.create`, which is not copied and from then on gives the stages of these levels alone;
            or a name.
        out_indices: levels to return; negative ones count from the deepest, a number n asks for the n deepest, None for
            all that are built.
        keywords: of `backbone.create`, where `network` is a name.

    Raises:
        RunError: timm is not installed.
        ArchitectureError: unknown network or keyword, or a level that there is not.
    """
    return TimmFeatures(as_network(network, None, keywords), out_indices)


def _levels(network: Backbone) -> list[dict[str, Any]]:
    """Return what timm's FeatureInfo holds of every level, with its stage; None for the stem before its pooling."""
    levels = []
    for stage in network.stage_names:
        info, modules = network.feature_info[stage], network.stage_modules(stage)
        before_pooling = stage == "stem" and hasattr(network, "maxpool")
        levels.append(
            {
                "num_chs": info.channels,
                "reduction": info.stride // 2 if before_pooling else info.stride,
                "module": modules[-2] if before_pooling else modules[-1],
                "stage": None if before_pooling else stage,
            }
        )
    return levels


def _indices(architecture: str, number: int, wanted: Sequence[int] | int | None) -> tuple[int, ...]:
    """Return the levels asked for, counted from 0, in order of depth."""
    if wanted is None:
        return tuple(range(number))
    listed = list(range(-wanted, 0)) if isinstance(wanted, int) else list(wanted)
    if not listed or not all(isinstance(index, int) and -number <= index < number for index in listed):
        raise ArchitectureError(f"{architecture}: out_indices {wanted!r} must be of its levels 0 to {number - 1}")
    return tuple(sorted({index % number for index in listed}))

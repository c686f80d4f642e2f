"""Our networks as backbones of transformers' models: DETR, Conditional and Deformable DETR, RT-DETR and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..common.errors import ArchitectureError
from ..networks.contract import resolve_outputs
from .inside import require

if TYPE_CHECKING:
    from .transformers_backbone import DetectionBackboneConfig


def register_transformers() -> None:
    """Make our networks known to transformers' AutoConfig and AutoBackbone. Harmless when repeated.

    Needed before `from_pretrained` of a model with one of our networks inside; `transformers_config` does it too.

    Raises:
        RunError: transformers is not installed.
    """
    require("transformers", "backbone.adapters.register_transformers")
    from transformers import AutoBackbone, AutoConfig

    from .transformers_backbone import DetectionBackbone, DetectionBackboneConfig

    AutoConfig.register(DetectionBackboneConfig.model_type, DetectionBackboneConfig, exist_ok=True)
    AutoBackbone.register(DetectionBackboneConfig, DetectionBackbone, exist_ok=True)


def transformers_config(
    name: str, *, out_features: Sequence[str] | None = None, norm: str = "frozen_bn", **keywords
) -> DetectionBackboneConfig:
    """Return the `backbone_config` of a transformers model with the network `name`.

    The model starts from He initialisation; `backbone.adapters.load_weights_into(model, file)` loads weights. Saved by
    `save_pretrained`, it comes back with `from_pretrained` once `register_transformers` was called.

    Args:
        name: one of `backbone.list_backbones()`.
        out_features: stages to return; by default all without the stem. DETR uses the deepest, RT-DETR three.
        norm: DETR's models replace "bn" by a frozen BN of their own, slower than "frozen_bn".
        keywords: of `backbone.create`.

    Raises:
        RunError: transformers is not installed.
        ArchitectureError: an unknown name or keyword, or a value that the network cannot take.
    """
    for key, mend in {
        "weights": "build the model, then call backbone.adapters.load_weights_into(model, file)",
        "num_classes": "a backbone has no classifier; num_labels of the detector's config counts its classes",
    }.items():
        if key in keywords:
            raise ArchitectureError(f"{name}: {key} is not for backbones of transformers: {mend}")
    register_transformers()
    from .transformers_backbone import DetectionBackboneConfig

    config = DetectionBackboneConfig(architecture=name, keywords={"norm": norm, **keywords})
    if out_features is not None:
        config.out_features = list(resolve_outputs(name, config.stage_names, out_features, None, default=()))
    return config

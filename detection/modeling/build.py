"""The model of a config."""

from __future__ import annotations

import traceback

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from backbone import ConfigError
from backbone.engine.config import get
from backbone.networks.norm import own_synchronised_norm

from ..config.keys import FEATURE_KEYS
from .box_losses import set_class_loss
from .retinanet import class_of, finish, without_norm
from .roi_align import use_all_threads
from .waits import spare_waits


def _source_line(error: Exception) -> str:
    return traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__


def _what_is_missing(error: KeyError, config: CfgNode) -> str:
    name = error.args[0]
    wanting = [key for key in FEATURE_KEYS if name in get(config, key)]
    if wanting:
        return f"{wanting[0]} has {name!r}, which is no feature of {config.MODEL.BACKBONE.NAME}"
    return f"its keys do not fit together: no {name!r} in {_source_line(error)}"


def build(config: CfgNode, architecture: type[nn.Module] | None = None) -> nn.Module:
    """Build the model on its device, in its memory layout.

    Args:
        architecture: by default the one of MODEL.META_ARCHITECTURE.

    Raises:
        ConfigError: keys of the config do not fit together.
    """
    architecture, made = architecture or class_of(config), without_norm(config)
    try:
        model = architecture(made).to(config.MODEL.DEVICE) if architecture else build_model(made)
    except KeyError as error:
        raise ConfigError(f"MODEL: {_what_is_missing(error, config)}") from None
    except AssertionError as error:
        # How detectron2 checks that lengths and channels of its keys agree.
        raise ConfigError(f"MODEL: its keys do not fit together: {str(error) or _source_line(error)}") from None
    finish(model, config)
    set_class_loss(model, config)
    # Of the pyramid and the heads, where detectron2 takes torch's.
    model = own_synchronised_norm(model)
    use_all_threads(model)
    spare_waits(model)
    if config.MODEL.CHANNELS_LAST:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.to(memory_format=torch.channels_last)
    return model

"""A copy of a detector for inference: norms folded, channels last, in the number type of TEST.PRECISION.

What is not made of torch's, detectron2's and our own modules, such as a user's own head, runs as it is, in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, MaskRCNNConvUpsampleHead
from torch import Tensor, nn
from torch.nn import functional as F

from backbone import Backbone
from backbone.engine.record import LOGGER
from backbone.networks.conv_norm import FoldedConv, is_watched
from backbone.networks.folding import NORMS_WITH_STATISTICS, fold_norms, fold_pair
from backbone.networks.plain import plain_copy

from ..modeling.fast_rcnn import VGGBoxHead
from ..modeling.roi_align import use_all_threads
from ..modeling.sampling import SparingRPN
from ..modeling.winograd_layer import WinogradLayer

log = logging.getLogger(LOGGER)
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
CONSTANT_NORMS = (*NORMS_WITH_STATISTICS, FrozenBatchNorm2d, NaiveSyncBatchNorm)
PACKAGES = ("torch", "torchvision", "fvcore", "detectron2", "backbone", "detection")
NETWORKS = (Backbone, FPN, ResNet)
# What runs in the lower precision beside the network and conv5 on regions. Coordinates, poolers and the last layers of
# box and mask heads keep float32: bfloat16 has steps of four pixels at the right of an image.
HEADS = (StandardRPNHead, FastRCNNConvFCHead, VGGBoxHead)
STAGE_ON_REGIONS = "res5"


def fast_copy(model: nn.Module, precision: str = "float32", *, compile: bool = False) -> nn.Module:
    """Return a copy of a detector that finds the same faster; `model` itself is left as it is.

    Layers that nothing is folded into share their memory with `model`. The copy has no gradients, and follows no later
    change of the weights.

    Args:
        precision: float32, bfloat16 or float16; detections are float32 in each.
        compile: pass the network below its pyramid, and conv5 on regions, through torch.compile.

    Returns:
        The copy; `model` itself where a module of a user's own cannot be copied.
    """
    try:
        fast = plain_copy(model, share=True).eval()
    except (TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        log.warning("the detector cannot be copied and runs as it is, in float32: %s", error)
        return model
    _fold(fast)
    use_all_threads(fast)
    for module in _known(fast):
        if type(module) is RPN and not is_watched(module):
            module.__class__ = SparingRPN
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(memory_format=torch.channels_last)
    heavy = list(_networks_and_stages(fast))
    if precision != "float32":
        _lower(fast, heavy, DTYPES[precision])
    if compile:
        for module in (getattr(module, "bottom_up", module) for module in heavy):
            on_cpu = next(module.parameters()).device.type == "cpu"
            module.compile(options={"freezing": True} if on_cpu else None)
    return fast


def lower(model: nn.Module, precision: str) -> None:
    """Fold the norms of a detector, and put into `precision` what `fast_copy` puts there, in place. Modules and
    operators stay those that an exporter can write."""
    _fold(model)
    _lower(model, list(_networks_and_stages(model)), DTYPES[precision])


def state_of(model: nn.Module) -> list[Any]:
    """Return what is equal as long as a copy is: which tensors and modules there are, and their changes so far.

    A change in place through `tensor.data` counts nowhere in torch, and is not seen.
    """
    tensors = [*model.parameters(), *model.buffers()]
    found: list[Any] = [
        (id(tensor), tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors
    ]
    return found + [(id(module), is_watched(module)) for module in model.modules()]


def _is_known(module: nn.Module) -> bool:
    return type(module).__module__.split(".")[0] in PACKAGES


def _all_known(module: nn.Module) -> bool:
    return all(map(_is_known, module.modules()))


def _known(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules below `model`, without those inside of unknown ones."""
    for child in model.children():
        if _is_known(child):
            yield child
            yield from _known(child)


def _fold(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if _all_known(child):
            setattr(module, name, fold_norms(child))
            for layer in child.modules():
                _fold_layer(layer)
        elif _is_known(child):
            _fold(child)


def _fold_layer(conv: nn.Module) -> None:
    """Fold detectron2's convolution with its norm and ReLU. In place: FPN holds its layers in lists too."""
    plain = type(conv) in (Conv2d, WinogradLayer) and conv.padding_mode == "zeros" and type(conv.padding) is tuple
    if not plain or is_watched(conv):
        return
    if (norm := conv.norm) is not None:
        if type(norm) not in CONSTANT_NORMS or norm.running_mean is None or is_watched(norm):
            return
        folded = fold_pair(conv, norm)
        conv.weight, conv.bias, conv.norm = folded.weight, folded.bias, None
    after = conv.activation
    relu = after is F.relu or (type(after) is nn.ReLU and not is_watched(after))
    if relu or after is None:
        conv.__class__, conv.relu, conv.activation = FoldedConv, relu, None


def _networks_and_stages(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the network with its pyramid, and conv5 on regions, where they are known."""
    network, heads = getattr(model, "backbone", None), getattr(model, "roi_heads", None)
    stage = getattr(heads, STAGE_ON_REGIONS, None) if _is_known(heads) else None
    if isinstance(network, NETWORKS) and _all_known(network):
        yield network
    if stage is not None and _all_known(stage):
        yield stage


def _lower(model: nn.Module, heavy: list[nn.Module], dtype: torch.dtype) -> None:
    """Put the heavy parts of `model` into `dtype`, with casts where features come in and go out."""
    known = list(_known(model))
    network = getattr(model, "backbone", None)
    readers_cast = all(_all_known(child) for child in model.children() if child is not network)
    heads = [head for head in known if type(head) in HEADS]
    heads += [net for head in known if type(head) is RetinaNetHead for net in (head.cls_subnet, head.bbox_subnet)]
    for module in (*heavy, *filter(_all_known, heads)):
        module.to(dtype)
        module.register_forward_pre_hook(_casts_inputs(dtype))
        # The RPN's head, RetinaNet's and the poolers cast for themselves; whoever is unknown takes float32.
        if not (module is network and readers_cast):
            module.register_forward_hook(_casts_output)
    for module in known:
        if isinstance(module, ROIPooler):
            # Coordinates in float16 would be off by half a pixel.
            module.register_forward_pre_hook(_casts_inputs(torch.float32))
        elif isinstance(module, MaskRCNNConvUpsampleHead) and _all_known(module):
            *layers, last = module.children()
            layers[0].register_forward_pre_hook(_casts_inputs(dtype))
            last.register_forward_pre_hook(_casts_inputs(torch.float32))
            for layer in layers:
                layer.to(dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return tensors of floats, alone or in lists, tuples and dicts, in `dtype`; all else as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_cast(item, dtype) for item in value)
    if type(value) is dict:
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value


def _casts_inputs(dtype: torch.dtype) -> Any:
    return lambda module, inputs: _cast(inputs, dtype)


def _casts_output(module: nn.Module, inputs: Any, output: Any) -> Any:
    return _cast(output, torch.float32)

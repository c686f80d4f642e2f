"""What the reader of a written file must set in the other project to compute the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .layouts.base import structure
from .weight_metadata import options_of

PROJECTS = {"mmdet": "MMDetection", "mmpretrain": "MMPretrain", "huggingface": "transformers"}
# What says the number of channels.
CHANNELS = {
    "timm": "create timm's network with in_chans={}",
    "mmdet": "build MMDetection's with in_channels={}",
    "mmpretrain": "build MMPretrain's with in_channels={}",
    "huggingface": "build transformers' with num_channels={}",
    "detectron2": "set MODEL.PIXEL_MEAN and PIXEL_STD to {} entries",
    "torchvision": "torchvision's network needs a new conv1 of {} channels",
}
# Of the networks with stages res2 to res5, by output stride.
STRIDES = {16: ((1, 2, 2, 1), (1, 1, 1, 2)), 8: ((1, 2, 1, 1), (1, 1, 2, 4))}


def reader_notes(network: nn.Module, layout: str, state: dict[str, Tensor]) -> list[str]:
    """Return what the reader of `layout` has to set or to know, in words."""
    has, options = structure(network, state), options_of(network)
    dilated = options["output_stride"] if options["dilation_style"] else None
    groups, width = _groups(network, has)
    notes = []
    channels = getattr(network, "in_chans", 3)
    if channels != 3:
        notes.append(
            f"images have {channels} channels: {CHANNELS.get(layout, 'another first convolution').format(channels)}"
        )
    if layout in ("mmdet", "mmpretrain"):
        notes += _openmmlab(layout, has, dilated, groups, width)
    elif layout == "detectron2":
        notes += _detectron2(has, dilated, groups, width)
    elif layout == "huggingface" and has["stride_in_1x1"]:
        notes.append("build transformers' ResNet with downsample_in_bottleneck=True")
    elif layout == "torchvision" and has["stride_in_1x1"]:
        notes.append("torchvision's own networks have the stride in the 3x3: only a reader of this project places it")
    elif layout == "timm" and dilated:
        notes.append(f"create timm's network with output_stride={dilated}")
    if layout == "torchvision" and dilated:
        replaced = [False, dilated == 8, True]
        notes.append(f"build torchvision's network with replace_stride_with_dilation={replaced}")
    notes += _dilation(layout, has, options, dilated)
    if has["ceil_pool"]:
        notes.append(f"this network pools without padding and rounds up, {layout}'s pads: features differ a little")
    return notes


def _groups(network: nn.Module, has: dict[str, bool]) -> tuple[int, int]:
    """Return groups and base width; those of the plain network where they are not another's."""
    table = getattr(network, "table", None)
    return (table.groups, table.base_width) if table is not None and (has["groups"] or has["wide"]) else (1, 64)


def _openmmlab(layout: str, has: dict[str, bool], dilated: int | None, groups: int, width: int) -> list[str]:
    kind, options = "ResNet", []
    if has["stride_in_1x1"]:
        options.append("style='caffe'")
    if (groups, width) != (1, 64):
        kind = "ResNeXt"
        options.append(f"groups={groups}, {'base_width' if layout == 'mmdet' else 'width_per_group'}={width}")
    options += ["deep_stem=True"] if has["deep"] else []
    options += ["avg_down=True"] if has["average_down"] else []
    options += ["norm_cfg=dict(type='GN', num_groups=32)"] if has["gn"] else []
    if dilated:
        options.append("strides={}, dilations={}".format(*STRIDES[dilated]))
    return [f"build {PROJECTS[layout]}'s {kind} with {', '.join(options)}"] if options else []


def _detectron2(has: dict[str, bool], dilated: int | None, groups: int, width: int) -> list[str]:
    options: list[tuple[str, Any]] = [("STRIDE_IN_1X1", True)] if has["stride_in_1x1"] else []
    if (groups, width) != (1, 64):
        options += [("NUM_GROUPS", groups), ("WIDTH_PER_GROUP", width)]
    options += [("NORM", "GN")] if has["gn"] else []
    options += [("RES5_DILATION", 2)] if dilated == 16 else []
    if not options:
        return []
    return ["set MODEL.RESNETS." + ", ".join(f"{key} to {value}" for key, value in options)]


def _dilation(layout: str, has: dict[str, bool], options: dict[str, Any], dilated: int | None) -> list[str]:
    """Return a note where the project does not dilate as the network does."""
    theirs = "torchvision" if layout in ("torchvision", "timm") else "mmdetection"
    if not dilated:
        return []
    if layout == "huggingface" or (layout == "detectron2" and dilated == 8):
        return [f"{layout} has no network of output stride {dilated}: features differ"]
    # With the stride in the 1x1 the first 3x3 stands behind it in either style.
    if options["dilation_style"] == theirs or (has["stride_in_1x1"] and not has["average_down"]):
        return []
    own = options["dilation_style"]
    return [f"{layout} dilates as dilation_style={theirs!r}, this network as {own!r}: features differ"]

"""What the config inside a checkpoint of OpenMMLab says of its weights: `meta["cfg"]`, or `meta["config"]` of MMCV 1.

The text is Python. It is parsed, never run: literals and calls of `dict` alone are understood, all else is unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from math import prod
from typing import Any

from ..common.errors import WeightsError
from ..common.preprocessing import Preprocessing
from .weight_metadata import KEYWORDS, WeightMetadata

LONGEST = 2**20  # characters; the longest of their configs have some 10,000


def openmmlab_weight_metadata(content: Any) -> WeightMetadata:
    """Return what the config in a checkpoint's `meta` knows; nothing for other files."""
    config = config_in(content)
    model = _dict(config, "model")
    return WeightMetadata(preprocessing=_preprocessing(config, model), **_keywords(_dict(model, "backbone")))


def config_in(content: Any) -> Mapping[str, Any]:
    """Return the config in a checkpoint's `meta`, as far as it is understood; {} for other files."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    text = (meta.get("cfg") or meta.get("config")) if isinstance(meta, Mapping) else None
    config = _parse(text) if isinstance(text, str) else text
    return config if isinstance(config, Mapping) else {}


def _parse(text: str) -> dict[str, Any]:
    """Return the names that a config's text assigns, with the values that are understood."""
    names: dict[str, Any] = {}
    if len(text) > LONGEST:
        return names
    try:
        for line in ast.parse(text).body:
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                names[line.targets[0].id] = _value(line.value, names)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return {}
    return names


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item, names) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _value(value, names) for key, value in zip(node.keys, node.values) if key}
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict"):
            return None
        found: dict[str, Any] = {}
        for keyword in node.keywords:
            value = _value(keyword.value, names)
            found |= {keyword.arg: value} if keyword.arg else _dict({"": value}, "")
        return found
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _dict(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _preprocessing(config: Mapping[str, Any], model: Mapping[str, Any]) -> Preprocessing | None:
    """Return the normalisation; their images are read as BGR, and both flags exchange the channels."""
    for node, exchanged in (
        (_dict(model, "data_preprocessor"), False),
        (_dict(config, "data_preprocessor"), False),
        (_dict(config, "img_norm_cfg"), True),
        *((step, True) for name in ("train_pipeline", "test_pipeline") for step in _steps(config.get(name))),
    ):
        if node.get("mean") is None or node.get("std") is None:
            continue
        flags = [node[key] for key in ("to_rgb", "bgr_to_rgb", "rgb_to_bgr") if key in node]
        order = "RGB" if any(flags) or (exchanged and not flags) else "BGR"
        try:
            return Preprocessing(order, 255, node["mean"], node["std"])
        except WeightsError:
            continue
    return None


def _steps(pipeline: Any) -> list[Mapping[str, Any]]:
    steps = pipeline if isinstance(pipeline, list) else []
    return [step for step in steps if isinstance(step, Mapping) and step.get("type") == "Normalize"]


def _keywords(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of `backbone.create` that follow from `model.backbone`, a ResNet or ResNeXt of theirs."""
    kind, depth = backbone.get("type"), backbone.get("depth")
    if not (isinstance(kind, str) and kind.startswith(("ResNet", "ResNeXt"))):
        return {}
    found: dict[str, Any] = {"average_down": kind == "ResNetV1d" or backbone.get("avg_down") is True}
    if isinstance(depth, int) and depth >= 50:
        found["stride_in_1x1"] = backbone.get("style") == "caffe"
    strides, dilations = (backbone.get(name) for name in ("strides", "dilations"))
    if _numbers(strides) and _numbers(dilations) and max(dilations) > 1:
        found["output_stride"] = 4 * prod(strides)
        found["dilation_style"] = "torchvision" if backbone.get("contract_dilation") is True else "mmdetection"
        if found["output_stride"] not in KEYWORDS["output_stride"]:
            return {name: found[name] for name in ("average_down", "stride_in_1x1") if name in found}
    return found


def _numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, int) for item in value)

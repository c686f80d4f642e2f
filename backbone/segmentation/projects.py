"""Whole segmentation networks of torchvision and MMSegmentation, read as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..common.errors import WeightsError
from ..common.preprocessing import IMAGENET
from ..common.text import some
from ..engine.starting_weights import IMAGE_KEYS, StartingWeights, WeightKeys
from ..networks import find_architecture
from ..weights import WeightsFile, interpret
from ..weights.identify import find_backbones
from ..weights.openmmlab_config import config_in
from ..weights.zoo_list import MM_SEGMENTORS, torchvision_network
from ..weights.zoos import openmmlab_models, torchvision_weights

BACKBONE, HEAD, AUXILIARY = "backbone.", "decode_head.", "auxiliary_head."
# MMSegmentation's auxiliary head is torchvision's FCN head under other names.
AUXILIARY_NAMES = {"convs.0.conv.": "0.", "convs.0.bn.": "1.", "conv_seg.": "4."}
# By what the names begin with, and MMSegmentation's own name of the head.
HEADS = {
    "convs.": ("fcn", "FCNHead"),
    "aspp_modules.": ("deeplabv3", "ASPPHead"),
    "psp_modules.": ("pspnet", "PSPHead"),
}
READ = "FCN, DeepLabV3 and PSPNet on ResNet-50 and 101 are read"
RATES_AT_8 = [12, 24, 36]


def refuse_name(source: str) -> None:
    """Raise WeightsError for the name of a segmentation network that is not read, before it is downloaded."""
    zoo, _, rest = source.partition(":")
    model = rest.partition(":")[0]
    if zoo == "torchvision":
        from torchvision.models import list_models, segmentation

        if model in list_models(module=segmentation) and torchvision_network(model) is None:
            raise WeightsError(
                f"{source}: no segmentation network of this kind here; of torchvision's, FCN and DeepLabV3 on "
                "ResNet-50 and 101 are read"
            )
    elif zoo in ("openmmlab", "open-mmlab"):
        tasks = {result.get("Task") for result in openmmlab_models().get(rest, {}).get("Results", ())}
        if "Semantic Segmentation" in tasks and not MM_SEGMENTORS.fullmatch(rest):
            raise WeightsError(f"{source}: no segmentation network of this kind here; of MMSegmentation's, {READ}")


def read_foreign(content: Any, tensors: Mapping[str, Tensor], source: str, keys: WeightKeys) -> StartingWeights | None:
    """Return a whole network of another project; None for a backbone, or a network of our own.

    Raises:
        WeightsError: its head or its network is none of ours.
    """
    if any(name.startswith(HEAD) for name in tensors):
        return _mmsegmentation(content, tensors, source, keys)
    whole = all(any(name.startswith(part) for name in tensors) for part in (BACKBONE, "classifier."))
    if not whole or (isinstance(content, Mapping) and "metadata" in content):
        return None
    return _torchvision(content, tensors, source, keys)


def _torchvision(content: Any, tensors: Mapping[str, Tensor], source: str, keys: WeightKeys) -> StartingWeights:
    file = _backbone(content, source)
    name = _network(file, source)
    head = "deeplabv3" if any(name.startswith("classifier.0.convs.") for name in tensors) else "fcn"
    if "classifier.4.weight" not in tensors:
        raise WeightsError(f"{source}: its head is none of torchvision's FCN and DeepLabV3")
    metadata = {"architecture": name, "head": head, "head_style": "torchvision"}
    notes = []
    if find_architecture(name).block == "bottleneck":
        metadata |= {"output_stride": 8, "atrous_rates": RATES_AT_8 if head == "deeplabv3" else []}
        notes = [] if source.startswith("torchvision:") else [f"{source}: taken for torchvision's, of output stride 8"]
    classes = []
    if source.startswith("torchvision:"):
        model, _, tag = source.removeprefix("torchvision:").partition(":")
        names = torchvision_weights(source, model, tag).meta["categories"]
        classes = [name.strip("_") for name in names]
    wants = {**_image_keys(), **_usual(keys), keys.stem: "conv7"}
    return StartingWeights(
        source, True, dict(tensors), wants, classes, metadata=metadata, usual=True, notes=notes, project="torchvision"
    )


def _mmsegmentation(content: Any, tensors: Mapping[str, Tensor], source: str, keys: WeightKeys) -> StartingWeights:
    config = config_in(content)
    model = config.get("model") if isinstance(config.get("model"), Mapping) else {}
    decode = model.get("decode_head") if isinstance(model.get("decode_head"), Mapping) else {}
    head = _head(tensors, decode, source)
    file = _backbone(content, source)
    name = _network(file, source)
    known = file.weight_metadata
    stride = known.output_stride or 8
    if find_architecture(name).block != "bottleneck" and stride < 32:
        raise WeightsError(f"{source}: MMSegmentation dilates blocks of two convolutions otherwise; {READ}")
    if (model.get("backbone") or {}).get("multi_grid"):
        raise WeightsError(f"{source}: a ResNet with multi_grid has no counterpart here; {READ}")
    own, left = {f"{BACKBONE}{key}": value for key, value in file.tensors.items()}, []
    for key, value in tensors.items():
        if key.startswith(HEAD):
            own[f"classifier.{key.removeprefix(HEAD)}"] = value
        elif key.startswith(AUXILIARY):
            part = next((part for part in AUXILIARY_NAMES if key.removeprefix(AUXILIARY).startswith(part)), None)
            if part is None:
                left.append(key)
            else:
                own["aux_classifier." + AUXILIARY_NAMES[part] + key.removeprefix(AUXILIARY + part)] = value
    if left:
        own = {key: value for key, value in own.items() if not key.startswith("aux_classifier.")}
    notes = [f"{source}: its auxiliary head has another form and is left out ({some(left)})"] if left else []
    rates = decode.get("dilations")
    rates = list(rates[1:]) if isinstance(rates, list) else [rate * 8 // stride for rate in RATES_AT_8]
    metadata = {
        "architecture": name,
        "head": head,
        "head_style": "mmsegmentation",
        "align_corners": decode.get("align_corners") is True,
        "output_stride": stride,
        "atrous_rates": rates if head == "deeplabv3" else [],
    }
    wants = {**_image_keys(), **_usual(keys), **keys.of_backbone(known, file.tensors)}
    if not config:
        notes.append(f"{source}: has no config; MMSegmentation's usual settings are taken")
    return StartingWeights(
        source,
        True,
        own,
        wants,
        _class_names(content),
        metadata=metadata,
        usual=not config,
        notes=[*notes, *_windows(model)],
        project="MMSegmentation",
    )


def _usual(keys: WeightKeys) -> dict[str, Any]:
    """Return the settings of torchvision, and of MMSegmentation's "pytorch" style with contract_dilation."""
    usual = {"stride_in_1x1": False, "average_down": False, "ceil_pool": False, "dilation_style": "torchvision"}
    return {keys.flags[key]: value for key, value in usual.items()}


def _image_keys() -> dict[str, Any]:
    numbers = IMAGENET.converted(value_range=255)
    return dict(zip(IMAGE_KEYS, (numbers.channel_order, list(numbers.mean), list(numbers.std))))


def _head(tensors: Mapping[str, Tensor], decode: Mapping[str, Any], source: str) -> str:
    names = {name.removeprefix(HEAD) for name in tensors if name.startswith(HEAD)}
    kind = decode.get("type")
    parts = [part for part in HEADS if any(name.startswith(part) for name in names)]
    fits = len(parts) == 1 and (kind or HEADS[parts[0]][1]) == HEADS[parts[0]][1]
    depthwise = any("depthwise_conv." in name for name in names)
    # FCN heads have any number of convolutions.
    of_two = "conv_cat.conv.weight" in names and "convs.2.conv.weight" not in names
    if not fits or depthwise or (parts == ["convs."] and not of_two):
        shown = kind or ("DeepLabV3+" if depthwise else f"with {some(sorted(names))}")
        raise WeightsError(f"{source}: MMSegmentation's head {shown} has no counterpart here; {READ}")
    if decode.get("dilation", 1) != 1:
        raise WeightsError(f"{source}: an FCN head with a dilation of {decode['dilation']} has no counterpart here")
    last = tensors[f"{HEAD}conv_seg.weight"]
    if last.shape[0] == 1:
        raise WeightsError(f"{source}: gives one score a pixel, for a threshold; networks here have one for each class")
    return HEADS[parts[0]][0]


def _backbone(content: Any, source: str) -> WeightsFile:
    try:
        file = interpret(content, {}, source)
    except WeightsError as error:
        raise WeightsError(f"{source}: a segmentation network on a network that is no ResNet: {error}") from None
    if file.layout is None:
        raise WeightsError(f"{source}: a segmentation network on a network that is no ResNet; {READ}")
    return file


def _network(file: WeightsFile, source: str) -> str:
    found = find_backbones(file)
    if not found:
        raise WeightsError(f"{source}: its network is none of this project's; {READ}")
    return found[0]


def _class_names(content: Any) -> list[str]:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), Mapping) else {}
    names = data.get("classes") or data.get("CLASSES") or meta.get("CLASSES")
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else []


def _windows(model: Mapping[str, Any]) -> list[str]:
    """Return how MMSegmentation tests the network in windows, in a line."""
    test = model.get("test_cfg")
    if not isinstance(test, Mapping) or test.get("mode") != "slide":
        return []
    size, stride = test.get("crop_size"), test.get("stride")
    if not (isinstance(size, list) and isinstance(stride, list) and size and stride):
        return []
    return [f"MMSegmentation tests it in windows: TEST.WINDOW {size[0]} TEST.WINDOW_STRIDE {stride[0]}"]

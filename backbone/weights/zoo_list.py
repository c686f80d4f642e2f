"""What can be had by name for the networks of this project, from the tables of the libraries that are installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import cache
from typing import Any

import torch

from ..common.errors import WeightsError
from ..common.preprocessing import CAFFE2_RESNEXT, MSRA, Preprocessing
from ..common.text import nearest
from ..networks import ARCHITECTURES, create
from . import zoos

# timm's and OpenMMLab's names: family, depth, a form of the network, the rest.
NAME = re.compile(r"(resnetv2_|resnext|resnet|wide_resnet|vgg)(\d+)([cd]?)(|_.*)")
FORMS: dict[str, dict[str, Any]] = {
    "": {},
    "c": {"stem": "deep"},
    "d": {"stem": "deep", "average_down": True},
}
DETECTRON2_NETWORKS = {"R_50": "resnet50", "R_101": "resnet101", "X_101_32x8d": "resnext101_32x8d"}
DETECTRON2_NAME = re.compile(
    r"((?:cascade_)?mask_rcnn|(?:faster|keypoint)_rcnn|retinanet)_(R_50|R_101|X_101_32x8d)_(?!.*dconv).*"
)
MM_DETECTORS = re.compile(
    r"(?:faster-rcnn|mask-rcnn|retinanet)_r(50|101)(?:-caffe)?[-_](?:c4|dc5|fpn)(?:_(?:fp16|ms|mstrain)(?:-poly)?)?[-_]\dx_coco"
)
MM_SEGMENTORS = re.compile(r"(?:fcn|deeplabv3|pspnet)_r(50|101)b?-d(?:8|16)_(?!.*mg).*")


@dataclass(frozen=True)
class Entry:
    """Weights that have a name.

    Attributes:
        network: in `backbone.list_backbones()`; of a detector and a segmentation network, the one inside.
        form: keywords of `backbone.create` that the weights ask for; loading sets or checks them.
        task: "classifier", "segmentation", "detector" or "backbone".
        accuracy: {data set: {metric: value}}, as published in the library's own table.
        mebibytes: of the file, in 2^20 bytes; for timm, of the network's tensors as float32.
        source: the file's URL, or the repository on the Hugging Face hub.
    """

    name: str
    network: str
    task: str
    classes: int | None = None
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    mebibytes: float | None = None
    licence: str | None = None
    preprocessing: Preprocessing | None = None
    source: str = ""
    form: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"preprocessing": self.preprocessing and self.preprocessing.to_dict()}


def list_weights(pattern: str = "") -> list[Entry]:
    """Return what can be had by name.

    Args:
        pattern: a part of the name or of the network, or a shell pattern such as "timm:resnet50*".

    Raises:
        WeightsError: nothing has such a name.
    """
    found, names = [], []
    for name, network, make in _all():
        names.append(name)
        if any(_matches(text, pattern) for text in (name, network)):
            found.append(make())
    if not found:
        raise WeightsError(f"no weights have a name like {pattern!r}{nearest(pattern, names)}")
    return found


def _matches(text: str, pattern: str) -> bool:
    text, pattern = text.lower(), pattern.lower()
    return fnmatch(text, pattern) if any(sign in pattern for sign in "*?[") else pattern in text


def _all() -> Iterator[tuple[str, str, Callable[[], Entry]]]:
    """Yield (name, network, function that makes the entry)."""
    for tables in (_torchvision, _timm, _detectron2, _openmmlab):
        yield from tables()


def torchvision_network(model: str) -> str | None:
    """Return the network of a model of torchvision; None where it is none of this project's, or has a head of none."""
    if model.startswith(("quantized", "keypoint", "ssd", "fcos")):
        return None
    return next((part for part in ARCHITECTURES if re.search(rf"(^|_){part}(_fpn.*)?$", model)), None)


def _torchvision() -> Iterator[tuple[str, str, Callable[[], Entry]]]:
    from torchvision.models import get_model_weights, list_models

    for model in list_models():
        network = torchvision_network(model)
        if network is None:
            continue
        for weights in get_model_weights(model):
            name = f"torchvision:{model}:{weights.name}"
            yield (
                name,
                network,
                lambda name=name, network=network, weights=weights: _of_torchvision(name, network, weights),
            )


def _of_torchvision(name: str, network: str, weights: Any) -> Entry:
    meta, transform = weights.meta, weights.transforms()
    # NaN stands where a figure was not measured.
    metrics = {
        data: {metric: value for metric, value in values.items() if value == value}
        for data, values in (meta.get("_metrics") or {}).items()
    }
    tasks = {"ImageClassification": "classifier", "SemanticSegmentation": "segmentation"}
    mean, std = getattr(transform, "mean", None), getattr(transform, "std", None)
    return Entry(
        name,
        network,
        tasks.get(type(transform).__name__, "detector"),
        len(meta["categories"]) if meta.get("categories") else None,
        metrics,
        meta.get("_file_size"),
        meta.get("license"),
        Preprocessing("RGB", 1, tuple(mean), tuple(std)) if mean and std else None,
        weights.url,
    )


def _timm() -> Iterator[tuple[str, str, Callable[[], Entry]]]:
    if zoos.folder_of("timm") is None:
        return
    from timm.models import list_pretrained

    for model in list_pretrained():
        known = network_of_timm(model.partition(".")[0])
        if known is not None:
            yield f"timm:{model}", known[0], lambda model=model, known=known: _of_timm(model, *known)


def network_of_timm(model: str) -> tuple[str, dict[str, Any]] | None:
    """Return our name for a model of timm, and its keywords of `backbone.create`; None where there is none."""
    match = NAME.fullmatch(model)
    if match is None:
        return None
    family, depth, form, rest = match.groups()
    norm = {"norm": "gn"} if rest.endswith("_gn") else {}
    name = f"{'preact_resnet' if family == 'resnetv2_' else family}{depth}{rest.removesuffix('_gn')}"
    return (name, FORMS[form] | norm) if name in ARCHITECTURES else None


def _of_timm(model: str, network: str, form: dict[str, Any]) -> Entry:
    config = zoos.timm_config(f"timm:{model}", model)
    return Entry(
        f"timm:{model}",
        network,
        "classifier",
        config.num_classes or None,
        {},
        round(_mebibytes(network, config.num_classes, *sorted(form.items())), 1),
        config.license,
        Preprocessing("RGB", 1, config.mean, config.std),
        config.hf_hub_id or config.url,
        form,
    )


@cache
def _mebibytes(network: str, classes: int, *form: tuple[str, Any]) -> float:
    with torch.device("meta"):
        state = create(network, num_classes=classes or None, **dict(form)).state_dict()
    return sum(value.numel() * 4 for value in state.values()) / 2**20


def _detectron2() -> Iterator[tuple[str, str, Callable[[], Entry]]]:
    for name in zoos.detectron2_files():
        # Such as detectron2://ImageNetPretrained/MSRA/R-101.pkl.
        network = DETECTRON2_NETWORKS.get(name.rpartition("/")[2].removesuffix(".pkl").replace("-", "_"))
        if network:
            url = zoos.DETECTRON2_SERVER + name.partition("//")[2]
            entry = Entry(name, network, "backbone", preprocessing=MSRA, source=url, form={"stride_in_1x1": True})
            yield name, network, lambda entry=entry: entry
    for model in zoos.detectron2_table():
        match = DETECTRON2_NAME.fullmatch(model.rpartition("/")[2])
        classes = zoos.detectron2_classes(model)
        if match is None or classes is None:
            continue
        network = DETECTRON2_NETWORKS[match[2]]
        preprocessing = CAFFE2_RESNEXT if match[2].startswith("X") else MSRA
        url = zoos.DETECTRON2_SERVER + zoos.detectron2_table()[model]
        entry = Entry(f"detectron2:{model}", network, "detector", classes, preprocessing=preprocessing, source=url)
        yield entry.name, network, lambda entry=entry: entry


def _openmmlab() -> Iterator[tuple[str, str, Callable[[], Entry]]]:
    for model, url in zoos.openmmlab_table().items():
        network = model.rpartition("/")[2].removesuffix("_caffe")
        if network in ARCHITECTURES:
            entry = Entry(f"openmmlab:{model}", network, "backbone", source=url)
            yield entry.name, network, lambda entry=entry: entry
    for model, values in zoos.openmmlab_models().items():
        task, match = "detector", MM_DETECTORS.fullmatch(model)
        if match is None:
            task, match = "segmentation", MM_SEGMENTORS.fullmatch(model)
        if match is None:
            continue
        results = {result.get("Dataset", ""): result.get("Metrics") or {} for result in values["Results"]}
        entry = Entry(f"openmmlab:{model}", f"resnet{match[1]}", task, None, results, source=values["Weights"])
        yield entry.name, entry.network, lambda entry=entry: entry

"""Weights into a detector: a whole detector's, or a backbone's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from backbone import Backbone, LoadReport, WeightsError
from backbone.common.text import count, some
from backbone.engine import starting_weights
from backbone.engine.starting_weights import StartingWeights
from backbone.networks.plain import load_plain
from backbone.weights import match
from backbone.weights.channels import adapt_channels

from ..modeling.backbone import network_of
from ..modeling.layers import layers_of
from . import projects
from .classes import map_classes, map_heads
from .detectron2_files import number_of_classes
from .detectron2_names import REGIONS, RETINANET_HEAD, res5_as_in
from .foreign import ForeignDetector
from .keys import WEIGHT_KEYS


def is_detector(tensors: Mapping[str, Tensor]) -> bool:
    """Whether some names are those of a backbone and some those of RoI heads or RetinaNet's head, in our checkpoints
    and in detectron2's.

    Nothing else is looked at: a checkpoint with half of the tensors is one too.
    """
    return any(name.startswith((REGIONS, *RETINANET_HEAD)) for name in tensors) and any(
        name.startswith("backbone.") for name in tensors
    )


def open_starting_weights(
    path: str, part: str = "", *, read: tuple[Any, dict[str, str]] | None = None
) -> StartingWeights:
    """Read a detector's checkpoint, ours or another project's, or a backbone's weights of any kind and layout.

    Args:
        part: see `starting_weights.open_starting_weights`.
        read: what `projects.read_known` returned for `path`, where it is read already.

    Raises:
        WeightsError: it cannot be read, or holds no named tensors.
        ConfigError: it is a name in a zoo whose detector has no counterpart here.
    """
    if read is None and not part:
        read = projects.read_known(path)
    return starting_weights.open_starting_weights(path, WEIGHT_KEYS, is_detector, part, projects.interpret, read)


def load_detector(model: nn.Module, weights: StartingWeights | str) -> LoadReport:
    """Load a detector's checkpoint into `model`, every tensor of it.

    Raises:
        WeightsError: it cannot be read, is no detector's, or does not fit; nothing is changed then.
    """
    weights = open_starting_weights(weights) if isinstance(weights, str) else weights
    if not weights.whole:
        raise WeightsError(f"{weights.source}: {weights.holds}, not a trained detector; train it with --weights first")
    return _fill(model, weights.tensors, weights.source, "the detector of this config")


def load_initial(model: nn.Module, weights: StartingWeights, config: CfgNode, classes: Sequence[str] = ()) -> str:
    """Load what training starts from: a detector's checkpoint, or a backbone's weights.

    Args:
        classes: names of the model's classes; the heads of a detector that was trained on others are mapped by name.

    Returns:
        A line that says what was loaded.

    Raises:
        WeightsError: as in `load_detector`.
    """
    source = weights.source
    if weights.whole:
        weights, mapped = _for_classes(weights, model, classes)
        report = load_detector(model, weights)
        return f"{source}: whole detector, {count(len(report.loaded), 'tensor')}{mapped}"
    if not isinstance(network := network_of(model), Backbone):
        raise WeightsError(
            f"{source}: holds a backbone, but MODEL.BACKBONE.NAME {config.MODEL.BACKBONE.NAME!r} is your own network: "
            "let it load its weights when it is built; a whole detector's checkpoint can be loaded"
        )
    tensors, adapted = adapt_channels(network, weights.tensors)
    wanted, rest = _split(tensors, network)
    parts = [(network, wanted)]
    heads = getattr(model, "roi_heads", None)
    if heads is not None:
        parts += layers_of(heads).pretrained_parts(heads, rest, f"layer{len(network.stage_names)}")
    reports = [match(module, tensors, source) for module, tensors in parts]
    for report in reports:
        if not report.fits:
            raise WeightsError(
                f"{source}: does not fit MODEL.BACKBONE.NAME {config.MODEL.BACKBONE.NAME!r}: {report.problems()}"
            )
    for (module, tensors), report in zip(parts, reports):
        _copy(module, tensors, report)
    loaded = sum(len(report.loaded) for report in reports)
    message = "; ".join([f"{source}: {weights.says}backbone, {count(loaded, 'tensor')}", *adapted])
    return message + weights.leaves


def _for_classes(weights: StartingWeights, model: nn.Module, classes: Sequence[str]) -> tuple[StartingWeights, str]:
    """Return the weights with heads for `classes`, and the end of the plan's line that says how many were mapped."""
    former = len(weights.classes) or number_of_classes(weights.tensors)
    # Files of other projects seldom name their classes. As many as the data has are taken to be the data's.
    unnamed = not isinstance(weights, ForeignDetector) or former in (0, len(classes))
    same = list(classes) == weights.classes if weights.classes else unnamed
    if not classes or same:
        return weights, ""
    mapping = map_classes(weights.classes, classes) if weights.classes else [None] * len(classes)
    tensors = map_heads(weights.tensors, model.state_dict(), mapping, former)
    anew = [name for name, place in zip(classes, mapping) if place is None]
    message = f"; {len(classes) - len(anew)} of {len(classes)} classes mapped by name from {former}"
    if anew:
        layers = dict.fromkeys(
            name.rpartition(".")[0] for name, value in tensors.items() if value is not weights.tensors[name]
        )
        message += f", initialised anew: {some(anew, 5)} (rows of {', '.join(layers)})"
    return replace(weights, tensors=tensors), message


def _split(tensors: dict[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part the tensors into those of the network's own modules, and those of deeper stages and the classifier."""
    tops = {name.split(".")[0] for name in network.state_dict()}
    rest = {name: value for name, value in tensors.items() if name.split(".")[0] in _beyond(network) - tops}
    return {name: value for name, value in tensors.items() if name not in rest}, rest


def _beyond(network: nn.Module) -> set[str]:
    return {"fc", "classifier", *(f"layer{index}" for index in range(1, 5))}


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: str, what: str) -> LoadReport:
    tensors = res5_as_in(model.state_dict(), tensors)
    report = match(model, tensors, path)
    # detectron2 keeps anchors and pixel statistics as buffers; the config sets them.
    computed = ("pixel_mean", "pixel_std", "anchor_generator.cell_anchors")
    report.missing = [name for name in report.missing if not any(part in name for part in computed)]
    report.unexpected = [name for name in report.unexpected if not any(part in name for part in computed)]
    if not report.fits:
        raise WeightsError(f"{path}: does not fit {what}: {report.problems()}")
    _copy(model, tensors, report)
    return report


def _copy(module: nn.Module, tensors: dict[str, Tensor], report: LoadReport) -> None:
    load_plain(module, {name: tensors[name] for name in report.loaded})

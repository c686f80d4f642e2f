"""Weights into a detector: a whole detector's, or a backbone's."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import Tensor, nn

from backbone import LoadReport, WeightsError
from backbone.text import count
from backbone.weights import find_state_dict, match, read_file, strip_prefixes

from ..modeling.backbone import network_of
from ..modeling.c4 import C4ROIHeads

DETECTOR_PARTS = ("backbone.", "proposal_generator.", "roi_heads.")


def is_detector(tensors: dict[str, Tensor]) -> bool:
    """Whether the tensors are a whole detector's, as our and detectron2's checkpoints hold them."""
    return any(name.startswith("roi_heads.") for name in tensors) and any(
        name.startswith("backbone.") for name in tensors
    )


def load_detector(model: nn.Module, path: str) -> LoadReport:
    """Load a detector's checkpoint into `model`, every tensor of it.

    Raises:
        WeightsError: it cannot be read, is no detector's, or does not fit; nothing is changed then.
    """
    tensors = find_state_dict(read_file(path)[0], path)
    if not is_detector(tensors):
        raise WeightsError(f"{path}: holds a backbone only, not a trained detector; train it with --weights first")
    return _fill(model, tensors, path, "the detector of this config")


def load_initial(model: nn.Module, path: str, config: CfgNode) -> str:
    """Load what training starts from: a detector's checkpoint, or a backbone's weights.

    Returns:
        A line that says what was loaded.

    Raises:
        WeightsError: as in `load_detector`.
    """
    tensors = find_state_dict(read_file(path)[0], path)
    if is_detector(tensors):
        report = _fill(model, tensors, path, "the detector of this config")
        return f"{path}: whole detector, {count(len(report.loaded), 'tensor')}"
    tensors = strip_prefixes(tensors)
    network = network_of(model)
    name = config.MODEL.BACKBONE.NAME
    wanted, rest = _split(tensors, network)
    head = getattr(model, "roi_heads", None)
    last_stage = f"layer{len(network.stage_names)}."
    in_head = {}
    if isinstance(head, C4ROIHeads):
        in_head = {key.removeprefix(last_stage): value for key, value in rest.items() if key.startswith(last_stage)}
    reports = [match(network, wanted, path)] + (
        [match(head.res5, in_head, path)] if isinstance(head, C4ROIHeads) else []
    )
    for report in reports:
        if not report.fits:
            raise WeightsError(f"{path}: does not fit MODEL.BACKBONE.NAME {name!r}: {report.problems()}")
    _copy(network, wanted, reports[0])
    if in_head:
        _copy(head.res5, in_head, reports[1])
    return f"{path}: backbone, {count(sum(len(report.loaded) for report in reports), 'tensor')}"


def _split(tensors: dict[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part the tensors into those of the network's own modules, and those of deeper stages and the classifier."""
    tops = {name.split(".")[0] for name in network.state_dict()}
    rest = {name: value for name, value in tensors.items() if name.split(".")[0] in _beyond(network) - tops}
    return {name: value for name, value in tensors.items() if name not in rest}, rest


def _beyond(network: nn.Module) -> set[str]:
    return {"fc", *(f"layer{index}" for index in range(1, 5))}


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: str, what: str) -> LoadReport:
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
    module.load_state_dict({name: tensors[name] for name in report.loaded}, strict=False)

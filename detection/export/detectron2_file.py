"""A trained detector as a file that detectron2 itself loads, with its config beside it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from backbone import WeightsError
from backbone.common.files import checked_file, write_text
from backbone.weights.save import AUTHOR

from ..config.detectron2_config import to_detectron2
from ..inference.detector import Detector
from ..weights.detectron2_files import Detectron2Layout
from .written import Written, check_target, state_of, write_checked

LAYOUT = Detectron2Layout()
COUNTER = ".num_batches_tracked"


def write_detectron2(detector: Detector, target: str | Path, *, overwrite: bool = False) -> Written:
    """Write a detector for detectron2's DefaultPredictor and DetectionCheckpointer, and detectron2's config beside it.

    The file is read back into detectron2's own model, every tensor of it, before it takes its name. It carries our
    config and the classes too, so that it loads here as it is.

    Args:
        target: .pkl (arrays, as in detectron2's model zoo) or .pth; the config gets its name with .yaml.

    Raises:
        WeightsError: another suffix, or one of both files exists without `overwrite`.
        ConfigError: detectron2 has no such network or head.
        RunError: a file cannot be written.
    """
    target = Path(target)
    beside = target.with_suffix(".yaml")
    check_target(target, LAYOUT.suffixes, LAYOUT.project, beside, overwrite=overwrite)
    theirs, idle = to_detectron2(detector.config, "its config")
    stock = _stock(theirs)
    translation = LAYOUT.write(state_of(detector), detector.config, detector.category_ids, str(target))
    lost = [former for former, (name, _) in translation.steps.items() if name not in stock.state_dict()]
    if unknown := [name for name in lost if not name.endswith(COUNTER)]:
        raise WeightsError(f"{target}: detectron2's detector has no place for {unknown[0]}; nothing is written")
    for former in lost:
        del translation.tensors[translation.steps[former][0]]
        translation.leave(former, "its norms count no batches")
    write_checked(
        target, lambda path: _write(path, target.suffix, translation.tensors, detector), stock, LAYOUT.project
    )
    theirs.MODEL.WEIGHTS = str(target)
    write_text(beside, theirs.dump())
    says = [f"{beside}: its config, for detectron2's DefaultPredictor"]
    notes = [f"{key} is left out, detectron2 has no such test" for key in idle]
    return Written(len(translation.tensors), translation, says, notes)


def _stock(config: CfgNode) -> torch.nn.Module:
    """Return detectron2's own model of its config, with random weights."""
    config = config.clone()
    config.MODEL.DEVICE = "cpu"
    return build_model(config)


def _write(path: Path, suffix: str, tensors: Mapping[str, Tensor], detector: Detector) -> None:
    # Without "matching_heuristics": detectron2 takes every tensor by its name.
    facts = {
        "__author__": AUTHOR,
        "config": detector.config.dump(),
        "metadata": {"classes": list(detector.classes), "category_ids": list(detector.category_ids)},
    }
    with checked_file(path) as file:
        if suffix == ".pkl":
            arrays = {name: value.numpy() for name, value in tensors.items()}
            pickle.dump({"model": arrays, **facts}, file, protocol=4)
        else:
            torch.save({"model": dict(tensors), **facts}, file)

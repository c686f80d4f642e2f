"""A trained detector as a checkpoint that MMDetection's own model loads strictly, with its config beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from backbone import WeightsError
from backbone.common.files import checked_file, write_text, write_whole
from backbone.weights import find_state_dict, read_file

from ..config.methods import methods_on
from ..config.names import is_retinanet
from ..inference.detector import Detector
from ..weights.mmdetection_files import MMDetectionLayout
from ..weights.mmdetection_model import config_text
from .written import Written, check_target, state_of

LAYOUT = MMDetectionLayout()


def write_mmdetection(detector: Detector, target: str | Path, *, overwrite: bool = False) -> Written:
    """Write a detector for MMDetection 3, and MMDetection's config beside it.

    The file is read back, and its tensors are compared with the detector's, before it takes its name. The config is in
    the file too, as MMEngine's runner writes it, so that it loads here as it is.

    Args:
        target: a .pth; the config gets its name with .py.

    Raises:
        WeightsError: another suffix, or one of both files exists without `overwrite`.
        ConfigError: MMDetection has no such network or head.
        RunError: a file cannot be written.
    """
    target = Path(target)
    beside = target.with_suffix(".py")
    check_target(target, LAYOUT.suffixes, "MMDetection", beside, overwrite=overwrite)
    text = config_text(detector.config, "its config")
    state = state_of(detector)
    translation = LAYOUT.write(state, detector.config, detector.category_ids, str(target))
    classes = {"classes": tuple(detector.classes), "category_ids": tuple(detector.category_ids)}
    content = {"meta": {"cfg": text, "dataset_meta": classes}, "state_dict": translation.tensors}

    def write_and_check(temporary: Path) -> None:
        with checked_file(temporary) as file:
            torch.save(content, file)
        read, _ = read_file(temporary)
        again = LAYOUT.read(read, find_state_dict(read, str(target)), str(target)).tensors
        if different := [name for name in state if name not in again or not torch.equal(again[name], state[name])]:
            raise WeightsError(f"{target}: not kept, {different[0]} differs when it is read back")

    write_whole(target, write_and_check)
    write_text(beside, text)
    notes = [f"{key} is left out, MMDetection has no such test" for key in methods_on(detector.config)]
    if is_retinanet(detector.config) and not detector.config.MODEL.RETINANET.CLIP_BEFORE_NMS:
        notes.append("MMDetection cuts boxes to the image before NMS: at the border a few detections may differ")
    notes.append("MMDetection resizes by OpenCV; of the same tensor it finds the same")
    says = [f"{beside}: its config, for MMDetection's init_detector({str(beside)!r}, {str(target)!r})"]
    return Written(len(translation.tensors), translation, says, notes, "read back and found equal")

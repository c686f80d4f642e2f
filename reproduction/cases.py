"""The detections that a run has left, with the ground truth they are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from backbone.common.errors import DataError
from detection.analysis import Case, case_of_coco, case_of_voc, with_images
from detection.data.voc import read_split
from detection.engine.datasets import source_of
from detection.evaluation import load_ground_truth, load_predictions
from detection.evaluation.voc_detections import load_detections

PREFIX, SUFFIX = "predictions_", ".json"


def prediction_files(folder: Path) -> dict[str, Path]:
    """Return {name of the set: file} of the predictions in a run folder."""
    found = sorted(folder.glob(f"{PREFIX}*{SUFFIX}"))
    return {path.name.removeprefix(PREFIX).removesuffix(SUFFIX): path for path in found}


def read_case(name: str, predictions: Path, config: Mapping[str, Any]) -> Case | None:
    """Return the case of one set; None where its annotations stay with an evaluation server.

    Args:
        config: of the run, for where the set lies.

    Raises:
        DataError, ConfigError: the set is not there any more, or a file is broken.
    """
    source = source_of(name, CfgNode(dict(config)))
    if source.voc is not None:
        if not source.voc.annotated:
            return None
        truth = read_split(source.voc, need_images=False)
        return case_of_voc(truth, load_detections(predictions, truth.ids, source.voc.split, source.voc.classes))
    if source.json_file.name.startswith("image_info_"):
        return None
    truth = load_ground_truth(source.json_file)
    case = case_of_coco(truth, load_predictions(predictions, truth), source.json_file)
    try:
        return with_images(case, source.image_folder)
    except DataError:
        # Boxes alone are drawn where the images have gone.
        return case

"""Figures of a test set's predictions; where there is no ground truth, the files for its evaluation server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbone import ConfigError
from backbone.common.files import write_json
from backbone.common.waiting import duration

from ..config.checks import VALIDATION_LOSS
from ..data.voc import DetSplit
from ..evaluation import CocoMetrics, VocMetrics, evaluate_coco, evaluate_voc
from ..evaluation.voc_detections import load_detections, write_det_submission, write_submission
from .datasets import TestSet

# Where PASCAL VOC's server looks inside the archive that is sent to it.
VOC_FOLDER = "results/VOC{year}/Main"
IMAGE_INFO = "image_info_"
DEFAULT_BEST = "bbox/AP"
VOC_FIGURES = ("bbox/AP", "bbox/AP50", "bbox/AP75", VALIDATION_LOSS)


def score(test: TestSet, predictions: list[dict[str, Any]], engine: str) -> dict[str, CocoMetrics | VocMetrics]:
    """Return the metrics of each kind ("bbox", "segm"; "bbox" has VOC's for a VOC set); {} without ground truth.

    Args:
        engine: of COCO's evaluation, as TEST.EVAL_ENGINE.
    """
    if not test.has_truth:
        return {}
    if test.voc is not None:
        return {"bbox": evaluate_voc(test.voc, predictions)}
    return {
        kind: evaluate_coco(truth, _of_kind(predictions, kind), kind, engine=engine)
        for kind, truth in test.ground_truth.items()
    }


def figures_line(name: str, metrics: dict[str, CocoMetrics | VocMetrics], seconds: float) -> str:
    """Return one line on the evaluation of a set: AP and AP50 of each kind, and how long it took."""
    kinds = {kind: values.to_json()[kind] for kind, values in metrics.items()}
    figures = "; ".join(f"{kind} AP {values['AP']:.4f}, AP50 {values['AP50']:.4f}" for kind, values in kinds.items())
    return f"evaluated    {name}: {figures or 'no ground truth, no figures'}; took {duration(seconds)}"


def _of_kind(predictions: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the records for one kind of evaluation; masks go by their own area, so their boxes are left out."""
    if kind != "segm":
        return predictions
    return [{key: value for key, value in record.items() if key != "bbox"} for record in predictions]


def submit(test: TestSet, predictions: list[dict[str, Any]], folder: Path) -> Path:
    """Write the predictions of a set without ground truth as its evaluation server takes them.

    Returns:
        The file detections_<set>_<name of `folder`>_results.json for COCO; for PASCAL VOC the folder of
        comp4_det_<split>_<class>.txt; for ImageNet DET the file detections_<set>.txt.
    """
    if test.voc is None:
        path = folder / f"detections_{_server_name(test)}_{folder.resolve().name}_results.json"
        write_json(path, predictions)
        return path
    split = test.voc.split
    found = load_detections(predictions, test.voc.ids, split.split, split.classes)
    if isinstance(split, DetSplit):
        path = folder / f"detections_{test.images.name}.txt"
        write_det_submission(found, path, split.first_pixel)
        return path
    target = folder / VOC_FOLDER.format(year=split.year or "")
    write_submission(found, target, test.voc.ids, split.split)
    return target


def _server_name(test: TestSet) -> str:
    """Return COCO's name of the set: image_info_test-dev2017.json lists "test-dev2017"."""
    stem = test.source.stem
    return stem.removeprefix(IMAGE_INFO) if stem.startswith(IMAGE_INFO) else test.images.name


def best_of(tests: list[TestSet], wanted: str) -> str:
    """Return the figure by which the best weights are chosen, of the first test set with ground truth.

    Args:
        wanted: as TEST.BEST.

    Raises:
        ConfigError: that set has no such figure.
    """
    known = next((test for test in tests if test.has_truth), None)
    figure = wanted or DEFAULT_BEST
    if wanted and known is None:
        raise ConfigError(f"TEST.BEST is {wanted}, but no set of DATASETS.TEST has ground truth; leave the key out")
    if known is not None and known.voc is not None and figure not in VOC_FIGURES:
        raise ConfigError(f"TEST.BEST is {wanted}; {known.images.name} has {', '.join(VOC_FIGURES)}")
    return f"{known.images.name}/{figure}" if known and len(tests) > 1 else figure

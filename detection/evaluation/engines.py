"""The programs that match predictions with ground truth: hotcoco, faster-coco-eval, and pycocotools, the reference.

hotcoco gives pycocotools's precision, recall and score arrays bit for bit. faster-coco-eval differs in the last bit of
precisions, so it runs only when asked for.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backbone.common.errors import UserError

from .ground_truth import GroundTruth
from .predictions import Predictions

log = logging.getLogger(__name__)

REFERENCE = "pycocotools"
AUTOMATIC = ("hotcoco", REFERENCE)
"""What "auto" tries, the fastest first: engines that are exact for boxes, masks and keypoints."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Precision and score (T, R, K, A, M) and recall (T, K, A, M), float64; -1 where there is no ground truth.

    T IoU thresholds, R recall thresholds, K categories, A area ranges, M limits of detections per image.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def run_engine(
    ground_truth: GroundTruth, predictions: Predictions, max_detections: list[int], engine: str = "auto"
) -> tuple[Curves, str]:
    """Match and accumulate; return the curves and the name of the engine that ran.

    Raises:
        UserError: the engine is not known, or not installed.
    """
    if engine == "auto":
        return _run_first(ground_truth, predictions, max_detections)
    if engine not in ENGINES:
        raise UserError(f"unknown evaluation engine {engine!r}; known: auto, {', '.join(ENGINES)}")
    try:
        return ENGINES[engine](ground_truth, predictions, max_detections), engine
    except ImportError as error:
        raise UserError(f"evaluation engine {engine!r} is not installed ({error}); pip install {engine}") from None


def _run_first(ground_truth: GroundTruth, predictions: Predictions, max_detections: list[int]) -> tuple[Curves, str]:
    *fast, last = AUTOMATIC
    for name in fast:
        try:
            return ENGINES[name](ground_truth, predictions, max_detections), name
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        # A panic in hotcoco's Rust code is a BaseException.
        except BaseException as error:
            trouble = "is not installed" if isinstance(error, ImportError) else "failed"
            log.warning("evaluation engine %s %s (%s); using %s: same numbers, slower", name, trouble, error, last)
    return run_engine(ground_truth, predictions, max_detections, last)


def _run_hotcoco(ground_truth: GroundTruth, predictions: Predictions, max_detections: list[int]) -> Curves:
    import hotcoco

    if ground_truth.iou_type == "keypoints":
        truth = hotcoco.COCO(_truth_as_dict(ground_truth))
        found = hotcoco.COCO(_predictions_as_dict(ground_truth, predictions))
    else:
        truth = hotcoco.COCO.from_arrays(
            _images(ground_truth),
            _categories(ground_truth),
            ground_truth.image + 1,
            ground_truth.category + 1,
            ground_truth.boxes,
            ids=np.arange(1, len(ground_truth.image) + 1),
            area=ground_truth.areas,
            iscrowd=ground_truth.crowd,
            segmentation=ground_truth.segmentations,
        )
        rows = (predictions.image + 1, predictions.boxes, predictions.scores, predictions.category + 1)
        found = truth.load_res(np.column_stack(rows), segmentation=predictions.segmentations)
        found.update_anns(ids=np.arange(1, len(predictions.image) + 1), area=predictions.areas)
    evaluator = hotcoco.COCOeval(truth, found, ground_truth.iou_type)
    evaluator.params.max_dets = max_detections
    if ground_truth.sigmas:
        evaluator.params.kpt_oks_sigmas = list(ground_truth.sigmas)
    with _silence():
        evaluator.evaluate()
        evaluator.accumulate()
    return _curves(evaluator.eval, ground_truth, max_detections)


def _run_faster_coco_eval(ground_truth: GroundTruth, predictions: Predictions, max_detections: list[int]) -> Curves:
    from faster_coco_eval import COCO, COCOeval_faster

    with _silence():
        truth = COCO(_truth_as_dict(ground_truth))
        found = COCO(_predictions_as_dict(ground_truth, predictions))
        evaluator = COCOeval_faster(truth, found, ground_truth.iou_type)
        evaluator.params.maxDets = max_detections
        _set_sigmas(evaluator.params, ground_truth)
        # It would leave out the categories without ground truth of keypoints.
        evaluator.params.catIds = list(range(1, len(ground_truth.category_ids) + 1))
        evaluator.evaluate()
        evaluator.accumulate()
    return _curves(evaluator.eval, ground_truth, max_detections)


def _run_pycocotools(ground_truth: GroundTruth, predictions: Predictions, max_detections: list[int]) -> Curves:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with _silence():
        truth, found = COCO(), COCO()
        truth.dataset = _truth_as_dict(ground_truth)
        # Not loadRes, which cannot take an empty list.
        found.dataset = _predictions_as_dict(ground_truth, predictions)
        truth.createIndex()
        found.createIndex()
        evaluator = COCOeval(truth, found, ground_truth.iou_type)
        evaluator.params.maxDets = max_detections
        _set_sigmas(evaluator.params, ground_truth)
        evaluator.evaluate()
        evaluator.accumulate()
    return _curves(evaluator.eval, ground_truth, max_detections)


def _set_sigmas(params: Any, ground_truth: GroundTruth) -> None:
    if ground_truth.sigmas:
        params.kpt_oks_sigmas = np.array(ground_truth.sigmas)


ENGINES: dict[str, Callable[[GroundTruth, Predictions, list[int]], Curves]] = {
    "hotcoco": _run_hotcoco,
    "faster-coco-eval": _run_faster_coco_eval,
    REFERENCE: _run_pycocotools,
}


def _silence() -> contextlib.AbstractContextManager[Any]:
    return contextlib.redirect_stdout(io.StringIO())


def _curves(result: dict[str, Any], ground_truth: GroundTruth, max_detections: list[int]) -> Curves:
    curves = Curves(*(np.asarray(result[key], dtype=np.float64) for key in ("precision", "recall", "scores")))
    sizes = curves.precision.shape[2], curves.precision.shape[4]
    if sizes != (len(ground_truth.category_ids), len(max_detections)):
        raise RuntimeError(f"curves for {sizes} categories and limits of detections")
    return curves


def _images(ground_truth: GroundTruth) -> list[dict[str, int]]:
    sizes = [size or (0, 0) for size in ground_truth.image_sizes]
    return [{"id": index, "height": height, "width": width} for index, (height, width) in enumerate(sizes, 1)]


def _categories(ground_truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": index, "name": name} for index, name in enumerate(ground_truth.class_names, 1)]


def _truth_as_dict(ground_truth: GroundTruth) -> dict[str, Any]:
    annotations = _annotations(ground_truth)
    for annotation, crowd in zip(annotations, ground_truth.crowd.tolist()):
        annotation["iscrowd"] = int(crowd)
    if ground_truth.labelled_keypoints is not None:
        for annotation, labelled in zip(annotations, ground_truth.labelled_keypoints.tolist()):
            annotation["num_keypoints"] = labelled
    return _dataset(ground_truth, annotations)


def _predictions_as_dict(ground_truth: GroundTruth, predictions: Predictions) -> dict[str, Any]:
    annotations = _annotations(predictions)
    for annotation, score in zip(annotations, predictions.scores.tolist()):
        annotation.update(score=score, iscrowd=0)
    return _dataset(ground_truth, annotations)


def _dataset(ground_truth: GroundTruth, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "info": {},
        "images": _images(ground_truth),
        "categories": _categories(ground_truth),
        "annotations": annotations,
    }


def _annotations(columns: GroundTruth | Predictions) -> list[dict[str, Any]]:
    # Ids begin with 1: pycocotools takes 0 for "no match".
    annotations = [
        {"id": index, "image_id": image, "category_id": category, "bbox": box, "area": area}
        for index, (image, category, box, area) in enumerate(
            zip(
                (columns.image + 1).tolist(),
                (columns.category + 1).tolist(),
                columns.boxes.tolist(),
                columns.areas.tolist(),
            ),
            1,
        )
    ]
    for key in ("segmentation", "keypoints"):
        values = columns.segmentations if key == "segmentation" else columns.keypoints
        if values is not None:
            for annotation, value in zip(annotations, values if key == "segmentation" else values.tolist()):
                annotation[key] = value
    return annotations

"""Evaluation of detectors. Does not need detectron2."""

from .coco import IOU_TYPES, MAX_DETECTIONS, evaluate_coco
from .engines import ENGINES, Curves
from .ground_truth import GroundTruth, load_ground_truth
from .metrics import CocoMetrics
from .predictions import Predictions, load_predictions
from .voc import VocMetrics, evaluate_voc

__all__ = [
    "ENGINES",
    "IOU_TYPES",
    "MAX_DETECTIONS",
    "CocoMetrics",
    "Curves",
    "GroundTruth",
    "Predictions",
    "VocMetrics",
    "evaluate_coco",
    "evaluate_voc",
    "load_ground_truth",
    "load_predictions",
]

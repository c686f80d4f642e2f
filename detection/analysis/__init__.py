"""Error analysis of detections on any data set: what is wrong, what it costs, where to look. Without detectron2."""

from .analysis import Analysis, analyze
from .case import Case, Detections, Objects, case_of_coco, case_of_voc, with_images
from .errors import MEANING, Errors, Kind
from .reporting import report, write_report
from .tables import OwnFigures

__all__ = [
    "MEANING",
    "Analysis",
    "Case",
    "Detections",
    "Errors",
    "Kind",
    "Objects",
    "OwnFigures",
    "analyze",
    "case_of_coco",
    "case_of_voc",
    "report",
    "with_images",
    "write_report",
]

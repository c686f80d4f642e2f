"""What detection writes into a run folder, and what a resumed run may change."""

from __future__ import annotations

from backbone.engine import resume
from backbone.engine.held_out import SPLIT_FILE
from backbone.engine.results import PICTURES, TABLE

from ..config.methods import METHOD_KEYS
from .alternating.steps import STEP_FILES
from .results import SHEET

# Keys of detection that a resumed run may have otherwise.
FREE_KEYS = {
    *("DATASETS.ROOT", "DATASETS.CACHE", "DATASETS.MAX_BAD_IMAGES", "PAPER.ROWS"),
    *("TEST.PICTURES", "TEST.PICTURE_SCORE", "TEST.EVAL_ENGINE", "TEST.LOSS"),
    *("TEST.PRECISION", "TEST.COMPILE", "TEST.BATCH_SIZE", *METHOD_KEYS),
}
ALL_FREE_KEYS = resume.FREE_KEYS | FREE_KEYS
# What detection writes into a run folder.
RUN_FILES = (
    *(TABLE, SHEET, PICTURES, SPLIT_FILE, "predictions_*.json"),
    *("detections_*_results.json", "detections_imagenet_*.txt", "results/VOC*/Main/comp4_*.txt"),
    *STEP_FILES,
)

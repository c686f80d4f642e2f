"""Checks of data sets in COCO form: `check_coco` before every run, decoding and mending for tools/check_data.py."""

from ...coco_json.files import write_json
from .files import read_json
from .images import ImageFacts, check_images, inspect_images
from .kinds import KINDS, UNUSABLE_BOXES, Fault, Kind, as_for_official_sets, in_order
from .mending import Mended, faults_of, mend
from .report import as_record, as_text, counts_of, has_errors, raise_on_errors, verdict, warnings_line
from .structure import check_coco

__all__ = [
    "KINDS",
    "UNUSABLE_BOXES",
    "Fault",
    "ImageFacts",
    "Kind",
    "Mended",
    "as_for_official_sets",
    "as_record",
    "as_text",
    "check_coco",
    "check_images",
    "counts_of",
    "faults_of",
    "has_errors",
    "in_order",
    "inspect_images",
    "mend",
    "raise_on_errors",
    "read_json",
    "verdict",
    "warnings_line",
    "write_json",
]

"""PASCAL VOC's detection sets, in the layout of the official downloads. Does not need detectron2."""

from backbone.common.class_names import VOC_CLASSES

from .layout import VocSplit, find_split, read_ids, split_of_folder
from .read import VocObjects, read_split

__all__ = [
    "VOC_CLASSES",
    "VocObjects",
    "VocSplit",
    "find_split",
    "read_ids",
    "read_split",
    "split_of_folder",
]

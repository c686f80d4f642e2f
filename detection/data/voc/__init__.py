"""Detection sets of PASCAL VOC and ImageNet DET, in the layouts of the official downloads. Needs no detectron2."""

from backbone.common.class_names import VOC_CLASSES

from .det import DetSplit, find_det_split
from .layout import VocSplit, find_split, read_ids, split_of_folder
from .read import VocObjects, read_split

__all__ = [
    "VOC_CLASSES",
    "DetSplit",
    "VocObjects",
    "VocSplit",
    "find_det_split",
    "find_split",
    "read_ids",
    "read_split",
    "split_of_folder",
]

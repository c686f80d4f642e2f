"""Data sets of one's own in the forms that tools export: found out by what lies there, read as COCO records, written.

Does not need detectron2."""

from .finding import find_place, has_part, part_of_run
from .place import FORMS, Place
from .reading import OwnData, read_place
from .splitting import choose_images, keep_images

__all__ = [
    "FORMS",
    "OwnData",
    "Place",
    "choose_images",
    "find_place",
    "has_part",
    "keep_images",
    "part_of_run",
    "read_place",
]

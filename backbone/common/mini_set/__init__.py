"""The built-in mini set: a small detection problem in COCO form, drawn by code, for trials without a download."""

from __future__ import annotations

from .build import mini_set_root, write_mini_set
from .shapes import CLASSES

__all__ = ["CLASSES", "mini_set_root", "write_mini_set"]

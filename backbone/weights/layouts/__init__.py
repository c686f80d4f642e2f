"""Layouts: the names that other projects give to the tensors of the same networks."""

from __future__ import annotations

from collections.abc import Collection

from ...common.errors import WeightsError
from ...common.text import nearest
from .base import Layout
from .caffe import Caffe
from .caffe2 import Caffe2
from .cifar import Cifar
from .detectron2 import Detectron2
from .huggingface import HuggingFace
from .openmmlab import MMDetection, MMPretrain
from .sequential import Sequential
from .timm import Timm
from .torchvision import Torchvision

# The first that recognises a file's names has it: torchvision's, the widest spread, is asked last.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Caffe(),
        Caffe2(),
        Detectron2(),
        HuggingFace(),
        MMDetection(),
        MMPretrain(),
        Timm(),
        Sequential(),
        Cifar(),
        Torchvision(),
    )
}
WRITABLE = tuple(sorted(name for name, layout in LAYOUTS.items() if layout.writable))


def find_layout(names: Collection[str]) -> Layout | None:
    """Return the layout that the names are of; None for none that is known."""
    return next((layout for layout in LAYOUTS.values() if layout.recognises(names)), None)


def writable_layout(name: str) -> Layout:
    """Return the layout to write; raises WeightsError for an unknown one, and one that is only read."""
    if name in WRITABLE:
        return LAYOUTS[name]
    only_read = f"layout {name!r} can be read, not written; known: {', '.join(WRITABLE)}"
    raise WeightsError(only_read if name in LAYOUTS else f"unknown layout {name!r}{nearest(name, WRITABLE)}")


__all__ = ["LAYOUTS", "WRITABLE", "Layout", "find_layout", "writable_layout"]

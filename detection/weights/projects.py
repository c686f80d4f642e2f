"""The projects whose whole detectors are read and written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from backbone.weights import read_file

from .detectron2_files import Detectron2Layout
from .foreign import DetectorLayout, ForeignDetector
from .mmdetection_files import MMDetectionLayout
from .torchvision_files import TorchvisionLayout

LAYOUTS: tuple[DetectorLayout, ...] = (Detectron2Layout(), MMDetectionLayout(), TorchvisionLayout())


def refuse_name(source: str) -> None:
    """Raise ConfigError for a name in a zoo whose detector has no counterpart here; nothing is fetched."""
    for layout in LAYOUTS:
        layout.refuse_name(source)


def read_known(path: str) -> tuple[Any, dict[str, str]]:
    """Return what `backbone.weights.read_file` does, unless `refuse_name` refuses it."""
    refuse_name(path)
    return read_file(path)


def layout_of(names: Collection[str]) -> DetectorLayout | None:
    """Return the layout that tensors of these names are of; None for ours, and for what is no detector."""
    return next((layout for layout in LAYOUTS if layout.recognise(names)), None)


def interpret(content: Any, tensors: Mapping[str, Tensor], source: str) -> ForeignDetector | None:
    """Return the detector of another project that a file holds; None for other files.

    Args:
        content: of the whole file; tensors: those in it, by their names.

    Raises:
        WeightsError: as in `DetectorLayout.read`.
    """
    layout = layout_of(tensors)
    return layout.read(content, tensors, source) if layout is not None else None

"""An exported segmentation network in its own runtime, in the place of the network that it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import WeightsError
from ..engine.config import fit, get, put
from ..engine.kinds import EXPORTED, SEGMENTATION
from ..exporting import load_exported
from ..exporting.check import shape_text
from ..exporting.formats import ExportedNetwork as ExportedFile
from ..exporting.quiet import last_line
from .networks import OUT

INPUT, SCORES = "images", "scores"
# What a test shows of the network, and how its images are read.
KEYS = (
    *("MODEL.NAME", "MODEL.OUTPUT_STRIDE", "MODEL.HEAD.NAME", "MODEL.HEAD.STYLE", "MODEL.HEAD.ALIGN_CORNERS"),
    *("MODEL.HEAD.ATROUS_RATES", "INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
)


def is_exported(path: str | Path) -> bool:
    """Whether a file's suffix is one of exported networks."""
    return Path(path).suffix.lower() in EXPORTED


class ExportedNetwork(nn.Module):
    """Gives what `SegmentationNetwork` gives, of pixels that are not preprocessed; on the CPU.

    Args:
        exported: the file.
    """

    # Preprocessing is part of the file.
    takes_pixels = True

    def __init__(self, exported: ExportedFile) -> None:
        super().__init__()
        self.exported = exported
        self.shape = exported.metadata.get("input", {}).get("shape") or [None] * 4

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """See `SegmentationNetwork.forward`; `images` are pixels as the file takes them.

        Raises:
            WeightsError: the file takes no images of this size, number or type.
        """
        if any(wanted not in (None, given) for wanted, given in zip(self.shape, images.shape)):
            own, given = (shape_text(shape) for shape in (self.shape, images.shape))
            raise WeightsError(
                f"{self.exported.path}: takes images of {own} alone, not {given}; export it without --static"
            )
        try:
            scores = self.exported(images.cpu().contiguous())[SCORES]
        except Exception as error:  # runtimes' exceptions have no common base
            given = f"images of {shape_text(images.shape)}, {images.dtype}"
            raise WeightsError(f"{self.exported.path}: cannot be run on {given}: {last_line(error)}") from error
        if size is not None and tuple(size) != scores.shape[-2:]:
            scores = torch.nn.functional.interpolate(scores, tuple(size), mode="bilinear", align_corners=False)
        return {OUT: scores.to(images.device)}


@dataclass(frozen=True)
class Exported:
    """A file that `export_segmenter` wrote.

    Attributes:
        network: in evaluation mode.
        values: {config key: value} of what it was made of.
    """

    source: str
    network: ExportedNetwork
    classes: list[str]
    values: dict[str, Any]
    runtime: str


def open_exported(path: str | Path) -> Exported:
    """Open an exported network.

    Raises:
        ExportError: no such file, a missing package, or the runtime does not take it.
        WeightsError: it is no segmentation network of this project.
    """
    exported = load_exported(path)
    said = exported.metadata
    classes, values = said.get("classes"), said.get("config")
    if said.get("task") != SEGMENTATION or not isinstance(classes, list) or not isinstance(values, dict):
        raise WeightsError(f"{path}: no segmentation network that tools/export_segmentation.py wrote")
    network = ExportedNetwork(exported).eval()
    return Exported(str(path), network, [str(name) for name in classes], values, exported.runtime)


def fit_exported(config: Any, exported: Exported) -> Any:
    """Return the frozen config with what an exported network is of."""
    fitted = config.clone()
    fitted.defrost()
    for key in KEYS:
        if key in exported.values:
            put(fitted, key, fit(exported.values[key], get(config, key), key, exported.source))
    fitted.freeze()
    return fitted

"""A whole segmentation network as one ONNX or OpenVINO file, run there and compared before it is kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import ExportError
from ..engine.config import get
from ..engine.kinds import SEGMENTATION
from ..exporting.check import TOLERANCE, compare
from ..exporting.formats import FORMATS, Format, format_of, runtime_of
from ..exporting.graph import AdaptiveAveragePool, ExportOptions
from ..exporting.metadata import project
from ..exporting.onnx_file import AXES, exporters_to_try, write_model
from ..exporting.openvino_file import convert_onnx
from ..exporting.whole import put_in_place, temporary_folder
from ..networks.folding import fold
from .exported import INPUT, KEYS, SCORES, is_exported
from .networks import SegmentationNetwork
from .segmenter import Segmenter


class SegmentationGraph(nn.Module):
    """From pixels to class scores: preprocessing, the folded backbone, the head, and the enlarging.

    Args:
        segmenter: whose network stays as it is.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        source = segmenter.network
        self.backbone = fold(source.backbone, channels_last=False).network
        self.classifier = copy.deepcopy(source.classifier).float()
        self.align_corners = source.align_corners
        for name, module in list(self.classifier.named_modules()):
            if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
                self.classifier.set_submodule(name, AdaptiveAveragePool(module.output_size))
        model = segmenter.config.MODEL
        self.flips = segmenter.config.INPUT.FORMAT == "BGR"
        self.register_buffer("mean", torch.tensor(list(model.PIXEL_MEAN), dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(model.PIXEL_STD), dtype=torch.float32).view(-1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, classes, H, W) scores of (N, C, H, W) pixels, as the network's images are read."""
        pixels = images.float()
        pixels = pixels.flip(1) if self.flips else pixels
        features = list(self.backbone((pixels - self.mean) / self.std).values())[-1]
        size = images.shape[-2:]
        return F.interpolate(self.classifier(features), size, mode="bilinear", align_corners=self.align_corners)


@dataclass(frozen=True)
class SegmentationReport:
    """What `export_segmenter` wrote.

    Attributes:
        files: {file: bytes}, the one asked for first.
        differences: {shape of images: largest difference of the scores over their largest value}.
    """

    files: dict[Path, int]
    runtime: str
    differences: dict[str, float]
    metadata: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        files = {str(path): size for path, size in self.files.items()}
        return {**vars(self), "files": files}


def export_segmenter(
    segmenter: Segmenter,
    path: str | Path,
    *,
    input_size: tuple[int, int] = (256, 384),
    dynamic: bool = True,
    tolerance: float = TOLERANCE,
) -> SegmentationReport:
    """Write a network on the CPU for another runtime; the suffix, .onnx or .xml (OpenVINO), decides which.

    The file takes `images`, (N, C, H, W) pixels as they are decoded: uint8 RGB or gray, float32 of bands. It gives
    `scores`, (N, classes, H, W) float32; their largest is a pixel's class. It is compared with the network before it
    takes its name; where they differ nothing is kept.

    Args:
        input_size: height and width of the images that it is checked with.
        dynamic: it takes any number of images of any size; otherwise one of that size.
        tolerance: largest difference to the network, over the largest score.

    Raises:
        ExportError: unknown suffix, missing package, a network that cannot be written, or a file that differs.
        RunError: the file cannot be written to disk.
    """
    path = Path(path)
    if not isinstance(segmenter.network, SegmentationNetwork):
        raise ExportError(f"{path}: an exported file is no source; give the checkpoint that it was made of")
    if not is_exported(path):
        raise ExportError(f"{path}: a segmentation network is written as .onnx or .xml (OpenVINO)")
    kind = format_of(path)
    channels = len(segmenter.config.MODEL.PIXEL_MEAN)
    options = ExportOptions(tuple(input_size), 1, dynamic, channels=channels)
    graph, metadata = SegmentationGraph(segmenter), describe(segmenter, options)
    examples = [
        (images := _images(shape, metadata, seed), {SCORES: _scores(segmenter, images)})
        for seed, shape in enumerate(options.shapes_to_check())
    ]
    exporters, notes = exporters_to_try("auto")
    for name in exporters:
        try:
            with temporary_folder(path) as folder:
                file = folder / path.name
                _write(graph, file, kind, options, metadata, name)
                run, found = kind.load(file)
                if found != metadata:
                    raise ExportError(f"{path}: its metadata did not come back as it was written; nothing was kept")
                compared = compare(run, examples, tolerance, f"{path} in {runtime_of(kind)}")
                del run  # it may hold the files open
                files = put_in_place(folder, path)
        except ExportError as error:
            if name == exporters[-1]:
                raise
            notes.append(f"written by the other exporter, because: {error}")
            continue
        differences = {shape: found[SCORES] for shape, found in compared.items()}
        sizes = {file: file.stat().st_size for file in files}
        return SegmentationReport(sizes, runtime_of(kind), differences, metadata, notes)
    raise AssertionError("there is always an exporter")


def describe(segmenter: Segmenter, options: ExportOptions) -> dict[str, Any]:
    """Return what the file says of itself."""
    bands = segmenter.config.INPUT.FORMAT == "bands"
    values = {key: get(segmenter.config, key) for key in KEYS}
    return {
        "task": SEGMENTATION,
        "classes": segmenter.classes,
        "config": {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()},
        "input": {
            "name": INPUT,
            "layout": "NCHW",
            "dtype": "float32" if bands else "uint8",
            "shape": [None, options.channels, None, None] if options.dynamic else list(options.shape),
        },
        "output": {"name": SCORES, "dtype": "float32"},
        "project": project(),
        "torch": torch.__version__,
    }


def _images(shape: tuple[int, ...], metadata: dict[str, Any], seed: int = 0) -> Tensor:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return images if metadata["input"]["dtype"] == "uint8" else images.float()


@torch.no_grad()
def _scores(segmenter: Segmenter, images: Tensor) -> Tensor:
    return segmenter.network(segmenter.how.prepare(images))["out"]


def _write(
    graph: SegmentationGraph, path: Path, kind: Format, options: ExportOptions, metadata: dict[str, Any], exporter: str
) -> None:
    target = path.with_suffix(".onnx")
    write_model(
        graph,
        {INPUT: _images(options.shape_to_trace(), metadata)},
        target,
        outputs=[SCORES],
        input_axes={INPUT: AXES} if options.dynamic else {},
        output_axes={SCORES: AXES} if options.dynamic else {},
        exporter=exporter,
        opset=None,
        metadata=metadata,
    )
    if kind is FORMATS[".xml"]:
        convert_onnx(target, path, metadata)
        target.unlink()

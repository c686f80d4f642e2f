"""`backbone.export`: write, run in the file's own runtime, compare with the source, keep."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..common.errors import ExportError
from ..networks.contract import Backbone
from .check import TOLERANCE, Example, compare, examples_of
from .formats import WEIGHTS_SUFFIXES, Format, format_of, runtime_of
from .graph import ExportGraph, ExportOptions, source_of
from .metadata import describe
from .onnx_file import exporters_to_try, opset_of
from .report import ExportReport
from .weights_file import export_weights
from .whole import put_in_place, temporary_folder

# Shown where a command has started the log.
log = logging.getLogger("backbone")


def export(
    network: nn.Module,
    path: str | Path,
    *,
    input_size: tuple[int, int] = (800, 1216),
    batch_size: int = 1,
    dynamic: bool = True,
    bake_preprocessing: bool = False,
    opset: int | None = None,
    exporter: str = "auto",
    layout: str | None = None,
    tolerance: float = TOLERANCE,
) -> ExportReport:
    """Write a network for another runtime; the suffix decides which.

    The file is run there before it takes its name, and compared with the network; where they differ nothing is kept.
    It takes `images` (N, 3, H, W) and gives the network's `out_features` under their names. What is written is the
    folded network (see `backbone.fold`); files of weights alone hold them as they are, and `load_weights` reads them.

    Args:
        network: of `backbone.create`; it stays as it is.
        path: .onnx, .pt2 (torch.export), .ts or .torchscript, .xml (OpenVINO, with its .bin); weights alone:
            .safetensors, .pth, .pt, .th, .pkl or .npz.
        input_size, batch_size: height and width, and number, of the images that the file is checked with.
        dynamic: the file takes any number of images of any size; otherwise those alone.
        bake_preprocessing: the file takes uint8 RGB images, 0..255, and does what the weights ask itself.
        opset: of ONNX; by default the exporter's own choice.
        exporter: "dynamo" (built on torch.export) or "torchscript", for .onnx and .xml; "auto" tries them in turn.
        layout: of the names in a file of weights alone, as in `save_weights`.
        tolerance: largest difference to the network, over the largest value of the stage.

    Raises:
        ExportError: unknown suffix, missing package, a keyword that does not fit, a network that cannot be written, or
            a file that computes something else.
        WeightsError: weights that `save_weights` does not write so.
        RunError: the file cannot be written to disk.
    """
    path = Path(path)
    source = source_of(network)
    options = ExportOptions(input_size, batch_size, dynamic, exporter, opset, source.in_chans)
    if path.suffix.lower() in WEIGHTS_SUFFIXES:
        if bake_preprocessing or exporter != "auto" or opset is not None:
            raise ExportError(f"{path}: holds weights alone; bake_preprocessing, exporter and opset are not for it")
        checks = {"input_size": input_size, "batch_size": batch_size, "dynamic": dynamic, "tolerance": tolerance}
        return export_weights(network, path, layout=layout or "torchvision", **checks)
    if layout is not None:
        raise ExportError(f"{path}: layout is for weights alone ({', '.join(WEIGHTS_SUFFIXES)}); leave it out")
    kind = format_of(path)
    exporters, notes = exporters_to_try(exporter) if kind.through_onnx else ([None], [])
    if not kind.through_onnx and (exporter != "auto" or opset is not None):
        raise ExportError(f"{path}: exporter and opset are for .onnx and .xml; leave them out")
    preprocessing = _preprocessing_to_bake(source) if bake_preprocessing else None
    graph = ExportGraph(source, preprocessing)
    examples = examples_of(source, graph, options)
    for name in exporters:
        try:
            report = _write_and_check(source, graph, path, kind, replace(options, exporter=name), examples, tolerance)
            return replace(report, notes=[*notes, *report.notes])
        except ExportError as error:
            if name == exporters[-1]:
                raise
            notes.append(f"written by the other exporter, because: {error}")
    raise AssertionError("there is always an exporter")


def _preprocessing_to_bake(source: Backbone) -> Any:
    preprocessing = getattr(source, "preprocessing", None)
    if preprocessing is None:
        raise ExportError(
            f"bake_preprocessing: it is not known what {source.architecture} wants; load weights that say it, or set "
            "network.preprocessing (backbone.weights.Preprocessing)"
        )
    return preprocessing


def _write_and_check(
    source: Backbone,
    graph: ExportGraph,
    path: Path,
    kind: Format,
    options: ExportOptions,
    examples: list[Example],
    tolerance: float,
) -> ExportReport:
    metadata = describe(source, graph, options)
    with temporary_folder(path) as folder:
        file = folder / path.name
        how = f" through torch's {options.exporter} exporter" if options.exporter else ""
        log.info("%s: writing %s%s", path, kind.name, how)
        kind.write(graph, file, options, metadata)
        log.info("%s: comparing with the network in %s", path, runtime_of(kind))
        run, found = kind.load(file)
        if found != metadata:
            raise ExportError(f"{path}: its metadata did not come back as it was written; nothing was kept")
        compared = compare(run, examples, tolerance, f"{path} in {runtime_of(kind)}")
        del run  # it may hold the files open
        opset = opset_of(file) if kind.name == "ONNX" else None
        files = put_in_place(folder, path)
    return ExportReport(
        {file: file.stat().st_size for file in files},
        kind.name,
        runtime_of(kind),
        compared,
        metadata,
        exporter=options.exporter,
        opset=opset,
    )

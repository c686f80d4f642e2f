"""ONNX: written by either of torch's exporters, run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..common.errors import ExportError
from .graph import INPUT, AsTuple, ExportGraph, ExportOptions
from .metadata import KEY, dump, parse
from .quiet import first_line, is_installed, quiet, require

EXPORTERS = ("dynamo", "torchscript")
AXES = {0: "batch", 2: "height", 3: "width"}
# Numbers of a weight that float16 is worth its cast for.
LEAST_HALF = 1024


def exporters_to_try(exporter: str) -> tuple[list[str], list[str]]:
    """Return the exporters to try in turn, and notes on those left out.

    The one built on torch.export comes first: it names every size, and its output is simplified already. The other
    needs no package and is quicker.

    Raises:
        ExportError: `exporter` is unknown, or its package is missing.
    """
    if exporter not in ("auto", *EXPORTERS):
        raise ExportError(f"exporter must be auto, {' or '.join(EXPORTERS)}; not {exporter!r}")
    missing = [] if is_installed("onnxscript") else ["onnxscript"]
    if exporter == "dynamo":
        require(missing, "ONNX through torch.export")
    if exporter == "auto" and missing:
        return ["torchscript"], ["onnxscript is not installed: written by the exporter built on TorchScript"]
    return list(EXPORTERS) if exporter == "auto" else [exporter], []


def write_onnx(graph: ExportGraph, path: Path, options: ExportOptions, metadata: Mapping[str, Any]) -> None:
    """Write the graph with the exporter that `options` name.

    Raises:
        ExportError: the exporter cannot write it.
    """
    write_model(
        AsTuple(graph),
        {INPUT: graph.example(options.shape_to_trace())},
        path,
        outputs=graph.outputs,
        input_axes={INPUT: AXES} if options.dynamic else {},
        output_axes=_output_axes(graph) if options.dynamic else {},
        exporter=options.exporter,
        opset=options.opset,
        metadata=metadata,
    )


def _output_axes(graph: ExportGraph) -> dict[str, dict[int, str]]:
    axes = {}
    for name in graph.outputs:
        spatial = {} if graph.network.feature_info[name].stride == 0 else {2: f"{name}_height", 3: f"{name}_width"}
        axes[name] = {0: "batch", **spatial}
    return axes


def write_model(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    path: Path,
    *,
    outputs: Sequence[str],
    input_axes: Mapping[str, Mapping[int, str]],
    output_axes: Mapping[str, Mapping[int, str]],
    exporter: str,
    opset: int | None,
    metadata: Mapping[str, Any],
    translations: Mapping[Any, Callable] | None = None,
) -> None:
    """Write any model with one of torch's exporters, and metadata beside it.

    Args:
        inputs: examples, by the argument's name.
        input_axes, output_axes: names of the axes whose sizes are left open.
        translations: {operator: onnxscript function}, for operators that the "dynamo" exporter does not know.

    Raises:
        ExportError: the exporter cannot write it.
    """
    import onnx

    arguments = tuple(inputs.values())
    common = {"input_names": list(inputs), "output_names": list(outputs), "opset_version": opset}
    try:
        with quiet(), torch.no_grad():
            if exporter == "dynamo":
                shapes = {name: dict(input_axes.get(name, {})) for name in inputs} if input_axes else None
                program = torch.onnx.export(
                    *(model, arguments),
                    dynamo=True,
                    dynamic_shapes=shapes,
                    custom_translation_table=dict(translations or {}),
                    verbose=False,
                    **common,
                )
                proto = program.model_proto
            else:
                axes = {name: dict(value) for name, value in {**input_axes, **output_axes}.items()}
                torch.onnx.export(model, arguments, str(path), dynamo=False, dynamic_axes=axes, **common)
                proto = onnx.load(str(path))
    except OSError:  # of the disk
        raise
    except Exception as error:  # exporters raise whatever they stumbled over
        raise ExportError(f"{path.name}: torch's {exporter} exporter cannot write it: {first_line(error)}") from error
    if opset not in (None, opset_in(proto)):
        raise ExportError(
            f"{path.name}: torch's {exporter} exporter cannot write it: it gives opset {opset_in(proto)}, not {opset}"
        )
    onnx.helper.set_model_props(proto, {KEY: dump(dict(metadata))})
    _drop_traces(proto.graph)
    for function in proto.functions:
        _drop_traces(function)
    onnx.save(proto, str(path))


def _drop_traces(graph: Any) -> None:
    """Take out of every node where in which file it came from: paths of the machine that the file is made on."""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _drop_traces(inner)


def drop_outputs(path: Path, names: Sequence[str], target: Path) -> None:
    """Write a file again without some of its outputs, and without what only they need."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    for output in [output for output in graph.output if output.name in names]:
        graph.output.remove(output)
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed |= _names_read(node)
    onnx.save(model, str(target))


def _names_read(node: Any) -> set[str]:
    """Return the names of the values that a node, or a graph inside of it, reads."""
    inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set(node.input).union(
        *(_names_read(other) for graph in inner for other in graph.node),
        *({output.name for output in graph.output} for graph in inner),
    )


def store_half(path: Path) -> None:
    """Store the weights of a file in float16; it computes with them in float32 as before.

    Weights beyond float16's range become its largest number.
    """
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    for weight in list(graph.initializer):
        values = onnx.numpy_helper.to_array(weight)
        # Small ones are norms, anchors and constants of the graph: nothing is saved on them.
        if values.dtype != np.float32 or values.size < LEAST_HALF:
            continue
        largest = np.finfo(np.float16).max
        half = onnx.numpy_helper.from_array(values.clip(-largest, largest).astype(np.float16), f"{weight.name}_half")
        graph.initializer.remove(weight)
        graph.initializer.append(half)
        cast = onnx.helper.make_node("Cast", [half.name], [weight.name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)
    onnx.save(model, str(path))


def onnx_session(path: Path) -> Any:
    """Open a file in ONNX Runtime, on the CPU.

    Raises:
        ExportError: it does not take the file.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ExportError(
            f"{path.name}: ONNX Runtime does not take it: {first_line(error)}; export it again"
        ) from error


def session_metadata(session: Any) -> dict[str, Any]:
    """Return what `write_model` wrote as metadata."""
    return parse(session.get_modelmeta().custom_metadata_map.get(KEY))


def opset_of(path: Path) -> int:
    """Return the version of ONNX's own operators that a file uses."""
    import onnx

    return opset_in(onnx.load(str(path), load_external_data=False))


def opset_in(model: Any) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def load_onnx(path: Path) -> tuple[Callable[[Tensor], dict[str, Tensor]], dict[str, Any]]:
    """Return a function from images to stages, and the file's metadata."""
    session = onnx_session(path)
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        values = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values)}

    return run, session_metadata(session)

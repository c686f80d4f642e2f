"""A trained detector to ONNX, run in ONNX Runtime and compared before it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from backbone import ExportError
from backbone.common.images import read_image
from backbone.exporting.metadata import project
from backbone.exporting.onnx_file import onnx_session, session_metadata, write_model
from backbone.exporting.quiet import last_line, require
from backbone.exporting.whole import put_in_place, temporary_folder

from ..config.names import is_retinanet, kind_of
from ..inference.detector import Detector
from ..inference.transform import TestTransform
from .compare import Agreement, agreement
from .graph import IMAGE, MASKS, DetectorGraph

OPSET = 17
TRACED = (3, 320, 416)  # of the image that the graph is traced with


@dataclass(frozen=True)
class DetectorReport:
    """What `export_detector` wrote.

    Attributes:
        compared: {image: differences to the detector}.
        notes: what the file does not do, in words.
    """

    path: Path
    size: int
    runtime: str
    compared: dict[str, Agreement]
    metadata: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        compared = {name: vars(found) for name, found in self.compared.items()}
        head = {"path": str(self.path), "bytes": self.size, "runtime": self.runtime}
        return {**head, "compared": compared, "metadata": self.metadata, "notes": list(self.notes)}


def export_detector(detector: Detector, path: str | Path, images: list[Path] | None = None) -> DetectorReport:
    """Write a Faster, Mask or Cascade R-CNN or a RetinaNet as one ONNX graph, non-maximum suppression and all.

    The graph takes `image` (3, H, W), float32, 0..255, any size, resized and with its channels in the order that the
    metadata names; it gives `boxes` (N, 4) XYXY in that image's pixels, `scores`, `classes`, and `masks`
    (N, 1, 28, 28), probabilities inside each box. Resizing and the pasting of masks stay outside.

    Args:
        images: files to compare on; by default two drawn pictures of other sizes.

    Raises:
        ExportError: another suffix, a missing package, or a graph that finds other objects; nothing is kept.
        DataError: an image cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise ExportError(f"{path}: whole detectors are written as .onnx alone; backbones have more formats")
    if detector.config.MODEL.KEYPOINT_ON:
        raise ExportError(f"{path}: detectors of keypoints are not written as one graph; export the backbone")
    if detector.config.INPUT.FORMAT not in ("RGB", "BGR"):
        raise ExportError(
            f"{path}: whole detectors of colour images alone are written, not of INPUT.FORMAT "
            f"{detector.config.INPUT.FORMAT!r}; export the backbone"
        )
    require(("onnx", "onnxruntime"), f"{path}: ONNX")
    graph = DetectorGraph(detector.model)
    metadata = _metadata(detector, graph)
    samples = {str(file): read_image(file) for file in images} if images else _drawn()
    with temporary_folder(path) as folder:
        file = folder / path.name
        write_model(
            graph,
            {IMAGE: torch.rand(TRACED, generator=torch.Generator().manual_seed(0)) * 255},
            file,
            outputs=graph.outputs,
            input_axes={IMAGE: {1: "height", 2: "width"}},
            output_axes={name: {0: "objects"} for name in graph.outputs},
            # The exporter on torch.export needs static control flow, which detectron2's proposals do not have.
            exporter="torchscript",
            opset=OPSET,
            metadata=metadata,
        )
        session = onnx_session(file)
        if session_metadata(session) != metadata:
            raise ExportError(f"{path}: its metadata did not come back as it was written; nothing was kept")
        compared = {
            name: _compare(detector, graph, session, image, f"{path} in ONNX Runtime, {name}")
            for name, image in samples.items()
        }
        del session
        put_in_place(folder, path)
    import onnxruntime

    runtime = f"onnxruntime {onnxruntime.__version__}"
    return DetectorReport(path, path.stat().st_size, runtime, compared, metadata, _notes(graph))


def _metadata(detector: Detector, graph: DetectorGraph) -> dict[str, Any]:
    config = detector.config
    return {
        "model": f"{kind_of(config)}, {config.MODEL.BACKBONE.NAME}",
        "classes": detector.classes,
        "category_ids": detector.category_ids,
        "input": {
            "name": IMAGE,
            "layout": "CHW",
            "dtype": "float32",
            "value_range": 255,
            "channel_order": config.INPUT.FORMAT,
            "shorter_side": config.INPUT.MIN_SIZE_TEST,
            "longer_side_at_most": config.INPUT.MAX_SIZE_TEST,
        },
        "outputs": list(graph.outputs),
        "boxes": "XYXY, pixels of the input image",
        "project": project(),
        "torch": torch.__version__,
    }


def _notes(graph: DetectorGraph) -> tuple[str, ...]:
    notes = [
        "one image at a time; resize it first as the metadata says, and scale the boxes back afterwards",
        "the plain test: flip, several scales, refinement, voting, Soft-NMS and ensembles stay outside",
    ]
    if MASKS in graph.outputs:
        notes.append("masks are probabilities inside each box (28 x 28); pasting them into the image stays outside")
    return tuple(notes)


def _drawn() -> dict[str, np.ndarray]:
    """Return two pictures with some structure; noise alone has no objects."""
    random = np.random.default_rng(0)
    pictures = {}
    for height, width in ((300, 400), (411, 273)):
        canvas = cv2.resize(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height))
        for _ in range(8):
            center = (int(random.integers(width)), int(random.integers(height)))
            color = tuple(int(value) for value in random.integers(0, 256, 3))
            cv2.circle(canvas, center, int(random.integers(10, 60)), color, -1)
        pictures[f"a drawn picture of {width} x {height}"] = canvas
    return pictures


def _compare(detector: Detector, graph: DetectorGraph, session: Any, image: np.ndarray, where: str) -> Agreement:
    pixels = TestTransform(detector.config, views=False)(image)["image"].contiguous().float()
    expected = of_detector(detector, pixels)
    try:
        values = session.run(list(graph.outputs), {IMAGE: pixels.numpy()})
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ExportError(f"{where} fails: {last_line(error)}; nothing was kept") from error
    return agreement(dict(zip(graph.outputs, values)), expected, where)


@torch.no_grad()
def of_detector(detector: Detector, pixels: torch.Tensor) -> dict[str, np.ndarray]:
    """Return what the detector itself finds, without the rescaling to another image size.

    Args:
        pixels: (3, H, W), as the network takes them.
    """
    if is_retinanet(detector.config):
        found = detector.model([{"image": pixels}])[0]["instances"].to("cpu")
    else:
        found = detector.model.inference([{"image": pixels}], do_postprocess=False)[0].to("cpu")
    values = {
        "boxes": found.pred_boxes.tensor.numpy(),
        "scores": found.scores.numpy(),
        "classes": found.pred_classes.numpy(),
    }
    return {**values, **({MASKS: found.pred_masks.numpy()} if found.has("pred_masks") else {})}

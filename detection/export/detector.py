"""A trained detector to ONNX or OpenVINO, run there and compared before it is kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from backbone import ExportError
from backbone.common.environment import version
from backbone.common.images import read_image
from backbone.common.text import count
from backbone.engine.config import dump, get, put
from backbone.engine.record import LOGGER
from backbone.exporting.check import differences
from backbone.exporting.metadata import project
from backbone.exporting.onnx_file import drop_outputs, store_half, write_model
from backbone.exporting.openvino_file import convert_onnx
from backbone.exporting.quiet import last_line, require
from backbone.exporting.whole import put_in_place, temporary_folder

from ..config import default_config
from ..config.names import kind_of
from ..inference.detector import Detector
from ..inference.exported import ENGINES_OF, Run, by_image, inputs_of, open_file
from ..inference.transform import TestTransform
from .compare import EXACT, Agreement, Tolerance, agreement, check_share, joined
from .graph import IMAGE, MASKS, PASTE_SIZE, DetectorGraph, has_masks
from .int8 import describe, quantise
from .reference import of_detector, pasted_otherwise, raw_of_detector

log = logging.getLogger(LOGGER)
OPSET = 17
# By the type of the weights. Those that are rounded give other scores, and other objects: of these the share is
# reported alone, and a fault is far outside of the first figure.
TOLERANCES = {
    "float32": EXACT,
    "float16": Tolerance(raw=1e-2, box=0.1, score=1e-3, share=0),
    "int8": Tolerance(raw=0.5, box=5, score=0.1, share=0),
}
# What the metadata say of a float16 ONNX file, see `fast.lower`.
COMPUTATION = {
    "float16": "network, pyramid, conv5 on regions, the RPN's layers, hidden layers of the heads",
    "float32": "RoIAlign, last layers of the heads, boxes, scores, non-maximum suppression, masks' probabilities",
}
RAW, WHOLE = "raw.onnx", "whole.onnx"
TRACED = (3, 320, 416)  # of the image that the graph is traced with
TRACED_HALF = (3, 32, 64)  # torch's convolutions in float16 take 30 times as long as others on CPUs


@dataclass(frozen=True)
class DetectorReport:
    """What `export_detector` wrote.

    Attributes:
        compared: {image: differences to the detector}.
        share: of the objects of all images that agree with the detector's to `tolerance`.
        notes: what the file does not do, in words.
    """

    path: Path
    size: int
    runtime: str
    compared: dict[str, Agreement]
    share: float
    tolerance: Tolerance
    metadata: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        compared = {name: {**vars(found), "of": found.of} for name, found in self.compared.items()}
        head = {"path": str(self.path), "bytes": self.size, "runtime": self.runtime, "share": self.share}
        head["tolerance"] = vars(self.tolerance)
        return {**head, "compared": compared, "metadata": self.metadata, "notes": list(self.notes)}


def export_detector(
    detector: Detector,
    path: str | Path,
    images: list[Path] | None = None,
    *,
    precision: str = "float32",
    uint8: bool = False,
    calibration: list[Path] | None = None,
    batches: bool = False,
    paste_masks: bool = False,
) -> DetectorReport:
    """Write a Faster, Mask or Cascade R-CNN or a RetinaNet as one graph, non-maximum suppression and all: .onnx, or
    OpenVINO's .xml with its .bin.

    The graph takes `image` (3, H, W), float32, 0..255, any size, resized and with its channels in the order that the
    metadata names; it gives `boxes` (M, 4) XYXY in that image's pixels, `scores`, `classes`, and `masks`
    (M, 1, 28, 28), probabilities inside each box. Resizing stays outside.

    Args:
        images: files to compare on; by default two of `calibration`, or two drawn pictures of other sizes.
        precision: what the weights are stored in: "float32"; "float16", which halves the file, and in ONNX computes
            in float16 too, see COMPUTATION; "int8", which computes its convolutions in int8.
        uint8: the graph takes uint8 in place of float32.
        calibration: training images for int8, see `int8.calibration_images`.
        batches: the graph takes any number of images of one size (N, 3, H, W), and gives `image_index` (M,) too: which
            of them each object is in.
        paste_masks: the graph takes `paste_size` (2,) too, the height and width of an image, and gives boxes in its
            pixels, and `masks` (M, height, width) bool, as detectron2 pastes them.

    Raises:
        ExportError: another suffix or precision, a missing package, or a graph that finds other objects; nothing is
            kept.
        DataError: an image cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in ENGINES_OF:
        raise ExportError(
            f"{path}: whole detectors are written as {' or '.join(ENGINES_OF)}; backbones have more formats"
        )
    if precision not in TOLERANCES:
        raise ExportError(f"{path}: weights are stored in {', '.join(TOLERANCES)}, not in {precision!r}")
    if (precision == "int8") != bool(calibration):
        raise ExportError(f"{path}: precision int8 and --calibrate, the images for its ranges, belong together")
    if uint8 and detector.config.INPUT.FLOAT_RESIZE:
        raise ExportError(f"{path}: with INPUT.FLOAT_RESIZE images are no uint8; write it for float32")
    if detector.config.MODEL.KEYPOINT_ON:
        raise ExportError(f"{path}: detectors of keypoints are not written as one graph; export the backbone")
    if detector.config.INPUT.FORMAT not in ("RGB", "BGR"):
        raise ExportError(
            f"{path}: whole detectors of colour images alone are written, not of INPUT.FORMAT "
            f"{detector.config.INPUT.FORMAT!r}; export the backbone"
        )
    check_masks(detector, paste_masks, path)
    # OpenVINO is told what to compute in where the file is opened.
    half = precision == "float16" and suffix == ".onnx"
    engine, tolerance = ENGINES_OF[suffix][0], TOLERANCES[precision]
    require(("onnx", engine), str(path))
    graph = DetectorGraph(detector.model, batches, paste_masks, half)
    metadata = _metadata(detector, graph, "uint8" if uint8 else "float32", precision)
    if half:
        metadata["computation"] = COMPUTATION
    if calibration:
        metadata["quantisation"] = describe(calibration)
    images = images or (calibration or [])[:2]
    samples = {str(file): read_image(file) for file in images} if images else _drawn()
    where = f"{path} in {engine}"
    with temporary_folder(path) as folder:
        log.info("%s: writing the graph", path)
        _write(graph, folder / RAW, metadata)
        if precision == "float16" and not half:
            store_half(folder / RAW)
        elif calibration:
            log.info("%s: quantising", path)
            quantise(folder / RAW, calibration, TestTransform(detector.config, views=False), metadata)
        drop_outputs(folder / RAW, graph.raw_outputs, folder / WHOLE)
        if suffix == ".xml":
            log.info("%s: converting to OpenVINO", path)
            convert_onnx(folder / WHOLE, folder / path.name, metadata)
        else:
            (folder / WHOLE).rename(folder / path.name)
        log.info("%s: comparing with the detector in %s on %s", path, engine, count(len(samples), "image"))
        raw, _ = open_file(folder / RAW, engine, outputs=(*graph.outputs, *graph.raw_outputs))
        run, found = open_file(folder / path.name, engine)
        if found != metadata:
            raise ExportError(f"{path}: its metadata did not come back as it was written; nothing was kept")
        compared = {
            name: _compare(detector, run, raw, image, metadata, tolerance, f"{where}, {name},")
            for name, image in samples.items()
        }
        share = check_share(compared, where, tolerance.share)
        del run, raw
        for name in (RAW, WHOLE):
            (folder / name).unlink(missing_ok=True)
        files = put_in_place(folder, path)
    size = sum(file.stat().st_size for file in files)
    return DetectorReport(
        path, size, f"{engine} {version(engine)}", compared, share, tolerance, metadata, _notes(graph)
    )


def check_masks(detector: Detector, paste_masks: bool, where: str | Path) -> None:
    """Raise ExportError if masks are to be pasted, and the detector has none."""
    if paste_masks and not has_masks(detector.model):
        raise ExportError(f"{where}: the detector has no masks; leave --paste-masks out")


def _write(graph: DetectorGraph, path: Path, metadata: dict[str, Any]) -> None:
    """Write the graph as ONNX, with the raw outputs too."""
    traced = TRACED_HALF if graph.half else TRACED
    shape = (2, *traced) if graph.batches else traced
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255
    sizes = {PASTE_SIZE: torch.tensor([240, 330])} if graph.paste else {}
    pixels = {MASKS: {1: "paste_height", 2: "paste_width"}} if graph.paste else {}
    axes = {int(graph.batches) + 1: "height", int(graph.batches) + 2: "width"}
    write_model(
        graph,
        {IMAGE: image.to(getattr(torch, metadata["input"]["dtype"])), **sizes},
        path,
        outputs=(*graph.outputs, *graph.raw_outputs),
        input_axes={IMAGE: {**axes, **({0: "images"} if graph.batches else {})}},
        output_axes={name: {0: "objects", **pixels.get(name, {})} for name in graph.outputs}
        | {name: {0: name} for name in graph.raw_outputs},
        # The exporter on torch.export needs static control flow, which detectron2's proposals do not have.
        exporter="torchscript",
        opset=OPSET,
        metadata=metadata,
    )


def _metadata(detector: Detector, graph: DetectorGraph, dtype: str, precision: str) -> dict[str, Any]:
    config = detector.config
    return {
        "model": f"{kind_of(config)}, {config.MODEL.BACKBONE.NAME}",
        "classes": detector.classes,
        "category_ids": detector.category_ids,
        "config": dump(_portable(config)),
        "input": {
            "name": IMAGE,
            "layout": "NCHW" if graph.batches else "CHW",
            "dtype": dtype,
            "value_range": 255,
            "channel_order": config.INPUT.FORMAT,
            "shorter_side": config.INPUT.MIN_SIZE_TEST,
            "longer_side_at_most": config.INPUT.MAX_SIZE_TEST,
        },
        "weights": precision,
        "outputs": list(graph.outputs),
        "boxes": f"XYXY, pixels of {'an image of paste_size' if graph.paste else 'the input image'}",
        **({"paste_size": {"name": PASTE_SIZE, "dtype": "int64", "holds": "height, width"}} if graph.paste else {}),
        "project": project(),
        "torch": torch.__version__,
    }


def _portable(config: CfgNode) -> CfgNode:
    """Return a config without paths of the machine that it was trained on."""
    config = config.clone()
    config.defrost()
    defaults = default_config()
    config.DATASETS = defaults.DATASETS
    for key in ("MODEL.WEIGHTS", "OUTPUT_DIR", "TEST.ENSEMBLE"):
        put(config, key, get(defaults, key))
    return config


def _notes(graph: DetectorGraph) -> tuple[str, ...]:
    number = "images of one size at a time; resize them" if graph.batches else "one image at a time; resize it"
    notes = [
        f"{number} first as the metadata says{'' if graph.paste else ', and scale the boxes back afterwards'}",
        "the plain test: flip, several scales, refinement, voting, Soft-NMS and ensembles stay outside",
    ]
    if graph.paste:
        notes.append("boxes and masks are in pixels of an image of `paste_size`: give the size before resizing")
    elif MASKS in graph.outputs:
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


def _compare(
    detector: Detector,
    run: Run,
    raw: Run,
    image: np.ndarray,
    metadata: dict[str, Any],
    tolerance: Tolerance,
    where: str,
) -> Agreement:
    """Compare file and detector on an image; where the file takes several, on its mirror image beside it."""
    pixels = TestTransform(detector.config, views=False)(image)["image"].contiguous().float()[None]
    if metadata["input"]["layout"] == "NCHW":
        pixels = torch.cat([pixels, pixels.flip(3)])
    paste_size = image.shape[:2] if "paste_size" in metadata else None
    given = inputs_of(metadata, pixels, image.shape[:2])
    try:
        found, every = run(given), raw(given)
    except Exception as error:  # of engines have no common base
        raise ExportError(f"{where} fails: {last_line(error)}; nothing was kept") from error
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in every.items()}
    reference = raw_of_detector(detector, pixels, tensors)
    computed = {name: tensors[name] for name in reference if name in tensors}
    largest = differences(computed, reference, tolerance=tolerance.raw, where=where, source="detector")
    each = [
        agreement(one, of_detector(detector, own, paste_size), tolerance)
        for own, one in zip(pixels, by_image(found, len(pixels)))
    ]
    otherwise = None
    if paste_size:
        otherwise = pasted_otherwise(tensors, paste_size)
        if not otherwise <= tolerance.pixels:
            raise ExportError(
                f"{where} pastes {otherwise:.2%} of the masks' pixels otherwise than detectron2, more than "
                f"{tolerance.pixels:.2%}; nothing was kept"
            )
    return replace(joined(each), raw=largest, pixels=otherwise)

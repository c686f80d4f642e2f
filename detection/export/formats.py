"""The files that a detector can be written as, side by side: size, time and AP."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from backbone import ExportError
from backbone.common.text import table

from ..evaluation import evaluate_coco
from ..inference.detector import Detector, load_trained_detector
from ..inference.exported import open_exported
from ..inference.on_truth import Truth, timed_records_on
from .detector import check_masks, export_detector


class Form(NamedTuple):
    """A row: the file that is written ("" for the checkpoint), the type of its weights, what runs it, and in which
    type it computes."""

    file: str
    weights: str
    engine: str
    precision: str


FORMS = (
    Form("", "float32", "torch", "float32"),
    Form("", "float32", "torch", "bfloat16"),
    Form("detector.onnx", "float32", "onnxruntime", "float32"),
    Form("detector.onnx", "float32", "openvino", "float32"),
    # ONNX Runtime has float16 kernels of these operators for no x86 CPU.
    Form("detector_float16.onnx", "float16", "onnxruntime", "float32"),
    Form("detector.xml", "float32", "openvino", "float32"),
    Form("detector_float16.xml", "float16", "openvino", "float32"),
    Form("detector_float16.xml", "float16", "openvino", "bfloat16"),
    Form("detector_float16.xml", "float16", "openvino", "float16"),
    Form("detector_int8.onnx", "int8", "onnxruntime", "int8"),
    Form("detector_int8.onnx", "int8", "openvino", "int8"),
    Form("detector_int8.xml", "int8", "openvino", "int8"),
)


@dataclass(frozen=True)
class FormatRow:
    """One form of a detector.

    Attributes:
        file: its name; engine: what ran it; weights, precision: the types that it stores and computes in.
        megabytes: of the file, in 10**6 bytes; milliseconds: median of an image, all forms in turn, without reading and
            resizing.
        AP: of boxes, COCO's; to_torch: AP less that of the checkpoint in float32.
        reason: why there are no figures; "" where there are.
    """

    file: str
    engine: str
    weights: str
    precision: str
    megabytes: float | None = None
    milliseconds: float | None = None
    AP: float | None = None
    to_torch: float | None = None
    reason: str = ""


def compare_formats(
    weights: str | Path,
    truth: Truth,
    folder: Path,
    overrides: list[object],
    calibration: list[Path] | None = None,
    *,
    paste_masks: bool = False,
) -> list[FormatRow]:
    """Write a detector in every form into `folder`, and measure each on the images of a ground truth.

    Args:
        weights: a checkpoint; overrides: KEY, VALUE, ... for it.
        calibration: training images for int8; without them its rows have no figures.
        paste_masks: the files paste masks themselves; else the time has that of detectron2's pasting.

    Raises:
        DataError: as in `timed_records_on`.
        ExportError: there are no masks to paste.
    """
    rows: list[FormatRow] = []
    opened: dict[int, Detector] = {}
    written: set[str] = set()
    original = load_trained_detector(weights, "cpu", overrides)
    check_masks(original, paste_masks, weights)
    # What is wrong with the truth shows before files are written.
    truth.mapper(original)
    for number, form in enumerate(FORMS):
        reason = ""
        try:
            opened[number] = _open(form, original, weights, folder, overrides, written, calibration, paste_masks)
        except ExportError as error:
            reason = str(error)
        name = form.file or Path(weights).name
        rows.append(FormatRow(name, form.engine, form.weights, form.precision, reason=reason))
    measured = timed_records_on(list(opened.values()), truth, f"{len(opened)} forms of {Path(weights).name}")
    values = [evaluate_coco(truth.data, records).to_json()["bbox"]["AP"] for records, _ in measured]
    for number, value, (_, milliseconds) in zip(opened, values, measured):
        size = _bytes(folder / rows[number].file if FORMS[number].file else Path(weights))
        figures = {"megabytes": size / 1e6 if size else None, "milliseconds": milliseconds}
        rows[number] = replace(rows[number], **figures, AP=value, to_torch=value - values[0])
    return rows


def _open(
    form: Form,
    original: Detector,
    weights: str | Path,
    folder: Path,
    overrides: list[object],
    written: set[str],
    calibration: list[Path] | None,
    paste_masks: bool,
) -> Detector:
    """Return the detector of a row; its file is written unless it is one of `written`."""
    if not form.file:
        if form.precision == original.config.TEST.PRECISION:
            return original
        return load_trained_detector(weights, "cpu", [*overrides, "TEST.PRECISION", form.precision])
    path = folder / form.file
    if form.file not in written:
        given = calibration if form.weights == "int8" else None
        export_detector(original, path, precision=form.weights, calibration=given, paste_masks=paste_masks)
        written.add(form.file)
    # What is int8 is in the file.
    return open_exported(path, form.engine, "cpu", "float32" if form.precision == "int8" else form.precision)


def _bytes(path: Path) -> int:
    """Return the size of a file, with the .bin beside an .xml; 0 of a name such as "torchvision:..."."""
    files = [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]
    return sum(file.stat().st_size for file in files if file.is_file())


def format_table(rows: list[FormatRow]) -> str:
    """Return the rows as a Markdown table, and below it why rows have no figures."""
    columns = ("file", "engine", "weights", "computes in", "MB", "ms an image", "AP", "to torch")

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    cells = [
        (
            *(row.file, row.engine, row.weights, row.precision),
            *(shown(row.megabytes, ".1f"), shown(row.milliseconds, ".1f"), shown(row.AP, ".4f")),
            shown(row.to_torch, "+.4f"),
        )
        for row in rows
    ]
    reasons = [f"{row.file} in {row.engine}, {row.precision}: {row.reason}" for row in rows if row.reason]
    return "\n".join([table(cells, columns), *reasons])


def as_json(rows: list[FormatRow]) -> list[dict[str, Any]]:
    """Return plain values for JSON."""
    return [asdict(row) for row in rows]

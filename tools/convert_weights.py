#!/usr/bin/env python3
"""Convert weights of any known kind and layout (torchvision, timm, OpenMMLab, detectron2, Caffe2, transformers, Caffe)
to the names of one project, in the kind of file that the new file's suffix names (.pth, .safetensors, .pkl, .npz).
A trained detector is converted as a whole where --to names a project whose detectors are known, else its backbone."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from backbone.common.cli import Parser, run
from backbone.common.errors import UserError
from backbone.common.text import count, table
from backbone.common.waiting import say_importing

# As backbone.weights.WRITABLE, which imports torch; --help and a wrong flag answer without it.
WRITABLE = ("detectron2", "huggingface", "mmdet", "mmpretrain", "timm", "torchvision")
# The projects whose whole detectors are written, with module and function in detection.export.
DETECTORS = {
    "detectron2": ("detectron2_file", "write_detectron2"),
    "mmdet": ("mmdetection_file", "write_mmdetection"),
    "torchvision": ("torchvision_file", "write_torchvision"),
}
# The beginnings of names of heads, in any project's file.
HEADS = ("roi_heads.", "head.", "roi_head.", "bbox_head.")
BACKBONE_ONLY = "--backbone-only converts its backbone alone"
EXAMPLE = "python tools/convert_weights.py ResNet-101-model.caffemodel R-101.pkl --to detectron2"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("source", metavar="IN", help="the weights to read: a file, a name or a URL")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument("--to", required=True, metavar="LAYOUT", help=f"one of {', '.join(WRITABLE)}")
    parser.add_argument("--backbone", metavar="NAME", help="the network (else found from the tensors' shapes)")
    parser.add_argument("--part", metavar="NAME", help="which of several networks in IN, such as teacher or model_ema")
    parser.add_argument(
        "--backbone-only",
        action="store_true",
        help=f"of a detector with --to {' or '.join(DETECTORS)} (else all of it is converted)",
    )
    parser.add_argument("--force", action="store_true", help="write over OUT if it exists")
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    say_importing("torch")
    from backbone.weights import MisfitError, convert, interpret, read_file

    weights = None
    if arguments.to in DETECTORS and arguments.part is None and not arguments.backbone_only:
        if arguments.source.startswith(("detectron2:", "torchvision:")):
            refuse_unknown_detector(arguments.source)
        read = read_file(arguments.source)
        weights = interpret(*read, arguments.source)
        if any(name.startswith(HEADS) for name in weights.beside) and is_detector(read[0], arguments.source):
            convert_detector(arguments, read)
            return
    try:
        done = convert(
            weights or arguments.source,
            arguments.target,
            arguments.to,
            architecture=arguments.backbone,
            overwrite=arguments.force,
            part=arguments.part,
        )
    except MisfitError as error:
        print(error.report.table())
        raise
    report = done.read
    print(f"{arguments.source}: {report.kind} file, {report.layout} layout, {count(len(report.loaded), 'tensor')}")
    print(f"network: {done.architecture}")
    print(f"known of the weights: {report.weight_metadata}")
    for note in done.notes:
        print(f"note: {note}")
    print(f"{arguments.target}: {arguments.to} layout, {count(done.tensors, 'tensor')}, read back and found equal")


def refuse_unknown_detector(name: str) -> None:
    """Refuse a detector of a zoo without a counterpart here, before it is downloaded."""
    import detection

    detection.register()
    from detection.weights.projects import refuse_name

    try:
        refuse_name(name)
    except UserError as error:
        raise type(error)(f"{error}; {BACKBONE_ONLY}") from None


def is_detector(content: Any, source: str) -> bool:
    """Whether a file's content is a whole detector: it has our config, or the names of a project's detectors."""
    import detection

    detection.register()
    from backbone.weights import find_state_dict
    from detection.weights.projects import layout_of

    has_config = isinstance(content, dict) and isinstance(content.get("config"), str)
    return has_config or layout_of(find_state_dict(content, source)) is not None


def convert_detector(arguments: Namespace, read: tuple[Any, dict[str, str]]) -> None:
    if arguments.backbone is not None:
        raise UserError(
            f"--backbone {arguments.backbone}: {arguments.source} is a whole detector, whose config names its network; "
            "leave it out, or add --backbone-only"
        )
    from importlib import import_module

    from backbone.engine.record import start_logging
    from detection.config.names import kind_of
    from detection.inference.detector import load_trained_detector
    from detection.weights.foreign import ForeignDetector
    from detection.weights.load import open_starting_weights

    module, function = DETECTORS[arguments.to]
    write = getattr(import_module(f"detection.export.{module}"), function)
    start_logging(None, quiet=True)
    try:
        detector = load_trained_detector(arguments.source, "cpu", read=read)
        done = write(detector, arguments.target, overwrite=arguments.force)
    except UserError as error:
        hint = "" if "--backbone-only" in str(error) else f"; {BACKBONE_ONLY}"
        raise type(error)(f"{error}{hint}") from None
    weights = open_starting_weights(arguments.source, read=read)
    foreign = isinstance(weights, ForeignDetector)
    translation = weights.translation.then(done.translation) if foreign else done.translation
    former = weights.project if foreign else "here"
    kind, network = kind_of(detector.config), detector.config.MODEL.BACKBONE.NAME
    classes = count(len(detector.classes), "class", "classes")
    print(f"{arguments.source}: {f'{former}: ' if foreign else ''}{kind} on {network}, {classes}")
    print(table(translation.rows(), (former, arguments.to, "tensors", "what was done"), limit=None))
    for note in (*weights.notes, *done.notes):
        print(f"note: {note}")
    tensors = count(done.tensors, "tensor")
    print(f"{arguments.target}: {arguments.to}'s detector, {tensors}, {done.checked}")
    for line in done.says:
        print(line)


if __name__ == "__main__":
    run(main)

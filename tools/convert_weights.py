#!/usr/bin/env python3
"""Convert weights of any known kind and layout (torchvision, timm, OpenMMLab, detectron2, Caffe2, transformers, Caffe)
to the names of one project, in the kind of file that the new file's suffix names (.pth, .safetensors, .pkl, .npz).
With --to detectron2 a trained detector is converted as a whole, else its backbone."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.errors import UserError
from backbone.common.text import count

# As backbone.weights.WRITABLE, which imports torch; --help and a wrong flag answer without it.
WRITABLE = ("detectron2", "huggingface", "mmdet", "mmpretrain", "timm", "torchvision")
EXAMPLE = "python tools/convert_weights.py ResNet-101-model.caffemodel R-101.pkl --to detectron2"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("source", metavar="IN", help="the weights to read: a file, a name or a URL")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument("--to", required=True, metavar="LAYOUT", help=f"one of {', '.join(WRITABLE)}")
    parser.add_argument("--backbone", metavar="NAME", help="the network (else found from the tensors' shapes)")
    parser.add_argument("--part", metavar="NAME", help="which of several networks in IN, such as teacher or model_ema")
    parser.add_argument(
        "--backbone-only", action="store_true", help="of a detector with --to detectron2 (else all of it is converted)"
    )
    parser.add_argument("--force", action="store_true", help="write over OUT if it exists")
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    from backbone.weights import MisfitError, convert, open_weights

    if arguments.to == "detectron2" and arguments.part is None and not arguments.backbone_only:
        beside = open_weights(arguments.source).beside
        if any(name.startswith(("roi_heads.", "head.cls_subnet.")) for name in beside):
            convert_detector(arguments)
            return
    try:
        done = convert(
            arguments.source,
            arguments.target,
            arguments.to,
            architecture=arguments.backbone,
            overwrite=arguments.force,
            part=arguments.part,
        )
    except MisfitError as error:
        print(error.report.table())
        raise
    read = done.read
    print(f"{arguments.source}: {read.kind} file, {read.layout} layout, {count(len(read.loaded), 'tensor')}")
    print(f"network: {done.architecture}")
    print(f"known of the weights: {read.weight_metadata}")
    for note in done.notes:
        print(f"note: {note}")
    print(f"{arguments.target}: {arguments.to} layout, {count(done.tensors, 'tensor')}, read back and found equal")


def convert_detector(arguments: Namespace) -> None:
    import detection

    detection.register()
    from detection.config.names import kind_of
    from detection.export.detectron2_file import write_detectron2
    from detection.inference.detector import load_trained_detector

    try:
        detector = load_trained_detector(arguments.source, "cpu")
    except UserError as error:
        hint = "" if "--backbone-only" in str(error) else "; --backbone-only converts its backbone alone"
        raise type(error)(f"{error}{hint}") from None
    done = write_detectron2(detector, arguments.target, overwrite=arguments.force)
    kind, network = kind_of(detector.config), detector.config.MODEL.BACKBONE.NAME
    classes = count(len(detector.classes), "class", "classes")
    print(f"{arguments.source}: {kind} on {network}, {classes}")
    print(done.table())
    for note in done.notes:
        print(f"note: {note}")
    tensors = count(done.tensors, "tensor")
    print(f"{arguments.target}: detectron2's detector, {tensors}, loaded strictly by its own model")
    print(f"{done.config}: its config, for detectron2's DefaultPredictor")


if __name__ == "__main__":
    run(main)

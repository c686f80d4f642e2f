#!/usr/bin/env python3
"""Write a trained segmentation network as one ONNX or OpenVINO file, from pixels to class scores. It is run and
compared with the network before it is kept."""

from __future__ import annotations

from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.text import table
from backbone.common.waiting import say_importing
from backbone.engine.arguments import add_import_argument

EXAMPLE = "tools/export_segmentation.py --weights output/voc_fcn_r50/model_best.pth --output fcn.onnx"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint or run folder of tools/train_segmentation.py, or a network of another project",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="an .onnx or .xml file")
    parser.add_argument(
        "--input-size",
        nargs=2,
        type=int,
        default=(256, 384),
        metavar=("H", "W"),
        help="of the images that the file is checked with (default: 256 384)",
    )
    parser.add_argument("--static", action="store_true", help="the file takes one image of that size alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was done")
    add_import_argument(parser)
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    say_importing("torch")
    from backbone.common.files import write_json
    from backbone.engine.extensions import import_modules
    from backbone.engine.record import start_logging
    from backbone.segmentation.export import export_segmenter
    from backbone.segmentation.segmenter import load_segmenter

    start_logging(None)
    import_modules(arguments.imports)
    segmenter = load_segmenter(arguments.weights, "cpu")
    report = export_segmenter(
        segmenter, arguments.output, input_size=tuple(arguments.input_size), dynamic=not arguments.static
    )
    for path, size in report.files.items():
        print(f"{path}: {size / 2**20:.1f} MiB")
    for note in (*segmenter.notes, *report.notes):
        print(f"note: {note}")
    print(f"run in {report.runtime} and compared: largest difference of the scores over their largest value")
    rows = [(shape, f"{value:.1e}") for shape, value in report.differences.items()]
    print(table(rows, ("images", "difference")))
    if arguments.json:
        write_json(arguments.json, report.to_dict())


if __name__ == "__main__":
    run(main)

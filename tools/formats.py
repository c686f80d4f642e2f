#!/usr/bin/env python3
"""Write a trained detector in every format, and compare size, time and AP of the files on a ground truth."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.text import count
from backbone.common.waiting import say_importing
from backbone.engine.arguments import add_import_argument

EXAMPLE = "tools/formats.py --weights run/model_best.pth --gt instances_val.json --images val/"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint of tools/train_net.py")
    parser.add_argument("--gt", required=True, type=Path, metavar="FILE", help="a COCO JSON, or a set in any form")
    parser.add_argument("--images", type=Path, metavar="DIR", help="of --gt, where they are not found by themselves")
    parser.add_argument(
        "--calibrate", metavar="PATH", help="training images for int8: a data set in any form, a folder or a glob"
    )
    parser.add_argument("--paste-masks", action="store_true", help="the files give masks pasted into the image")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the files there (else they are thrown away)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON")
    add_import_argument(parser)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="config keys, such as INPUT.MIN_SIZE_TEST 480"
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_intermixed_args()
    say_importing("torch", "detectron2")
    import detection

    detection.register()
    from backbone.common.files import write_json
    from backbone.engine.extensions import import_modules
    from backbone.engine.record import start_logging
    from detection.export.formats import as_json, compare_formats, format_table
    from detection.export.int8 import calibration_images
    from detection.inference.on_truth import read_truth

    start_logging(None)
    import_modules(arguments.imports)
    truth = read_truth(arguments.gt, arguments.images)
    with contextlib.ExitStack() as stack:
        folder = arguments.output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calibration = calibration_images(arguments.calibrate, folder) if arguments.calibrate else None
        given = (arguments.weights, truth, folder, arguments.overrides, calibration)
        rows = compare_formats(*given, paste_masks=arguments.paste_masks)
    print(f"{arguments.weights} on {arguments.gt}, {count(len(truth.images), 'image')}, on the CPU\n")
    print(format_table(rows))
    if arguments.json:
        write_json(arguments.json, as_json(rows))


if __name__ == "__main__":
    run(main)

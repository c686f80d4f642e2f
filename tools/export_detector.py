#!/usr/bin/env python3
"""Write a trained detector as one ONNX or OpenVINO file, non-maximum suppression and all. It is run and compared with
the detector before it is kept."""

from __future__ import annotations

from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.text import table
from backbone.common.waiting import say_importing
from backbone.engine.arguments import add_import_argument

EXAMPLE = "tools/export_detector.py --weights run/model_best.pth --output detector.onnx --images photos/"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint of tools/train_net.py")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="an .onnx or .xml file")
    parser.add_argument("--images", metavar="PATH", help="image, folder or glob to compare on (else drawn pictures)")
    parser.add_argument(
        "--precision", default="float32", help="of the weights in the file: float32, float16 or int8 (default: float32)"
    )
    parser.add_argument(
        "--calibrate", metavar="PATH", help="for int8: training images, as a data set in any form, a folder or a glob"
    )
    parser.add_argument("--uint8", action="store_true", help="the file takes uint8 images in place of float32")
    parser.add_argument("--batches", action="store_true", help="the file takes several images of one size at once")
    parser.add_argument("--paste-masks", action="store_true", help="the file gives masks pasted into the image")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was done")
    add_import_argument(parser)
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    say_importing("torch", "detectron2")
    import detection

    detection.register()
    from backbone.common.files import write_json
    from backbone.common.images.inputs import find_inputs
    from backbone.engine.extensions import import_modules
    from backbone.engine.record import start_logging
    from detection.export import export_detector
    from detection.export.int8 import calibration_images
    from detection.inference.detector import load_trained_detector
    from detection.inference.inputs import PICTURE

    start_logging(None)
    import_modules(arguments.imports)
    folder = arguments.output.parent
    images = find_inputs(arguments.images, folder, PICTURE, "--images") if arguments.images else None
    calibration = calibration_images(arguments.calibrate, folder) if arguments.calibrate else None
    report = export_detector(
        load_trained_detector(arguments.weights, "cpu"),
        arguments.output,
        images,
        precision=arguments.precision,
        uint8=arguments.uint8,
        calibration=calibration,
        batches=arguments.batches,
        paste_masks=arguments.paste_masks,
    )
    print(f"{report.path}: {report.size / 2**20:.1f} MiB, {report.metadata['model']}")
    raw = max(value for found in report.compared.values() for value in found.raw.values())
    print(
        f"run in {report.runtime} and compared with the detector: raw outputs differ by at most {raw:.1e} of their "
        f"largest value, {report.share:.2%} of the objects agree to {report.tolerance}"
    )
    rows = [
        (
            name,
            f"{max(found.raw.values()):.1e}",
            f"{found.objects} of {found.of}",
            f"{found.box:.1e}",
            f"{found.score:.1e}",
        )
        for name, found in report.compared.items()
    ]
    print(table(rows, ("image", "raw outputs", "objects", "boxes, px", "scores")))
    if arguments.paste_masks:
        pixels = max(found.pixels for found in report.compared.values())
        print(f"masks: {pixels:.3%} of their pixels are pasted otherwise than by detectron2, ties left aside")
    for note in report.notes:
        print(f"note: {note}")
    if arguments.json:
        write_json(arguments.json, report.to_dict())


if __name__ == "__main__":
    run(main)

#!/usr/bin/env python3
"""Run a trained detector on images: boxes (and masks) drawn, and a JSON in COCO's results form."""

from __future__ import annotations

from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.text import count
from backbone.engine.arguments import add_import_argument

EXAMPLE = "tools/predict.py --weights output/quickstart/model_best.pth --input photos/ --output found/"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint of tools/train_net.py, an exported .onnx or .xml, or a detector of another project",
    )
    parser.add_argument("--config", metavar="FILE", help="of weights of detectron2 (else its model zoo's is found)")
    parser.add_argument("--input", required=True, metavar="PATH", help="an image, a folder, or a quoted glob")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--score", type=float, default=0.5, metavar="S", help="least score drawn (default: 0.5)")
    parser.add_argument("--engine", help="torch, onnxruntime or openvino (else what the suffix of --weights asks for)")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    parser.add_argument(
        "--ids", type=Path, metavar="JSON", help="annotations in COCO form, whose image ids the predictions get"
    )
    parser.add_argument(
        "--save-as",
        action="append",
        choices=("yolo", "csv", "label-studio"),
        help="write the boxes of --score or more in this form too; may be given more than once",
    )
    add_import_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys, such as TEST.FLIP True")
    return parser


def main() -> None:
    arguments = make_parser().parse_intermixed_args()
    import detection

    detection.register()
    from backbone.engine.extensions import import_modules
    from backbone.engine.record import start_logging
    from detection.inference.detections import found_line
    from detection.inference.predict import predict

    start_logging(None)
    import_modules(arguments.imports)
    detector = detection.load(
        arguments.weights,
        arguments.device,
        engine=arguments.engine,
        config=arguments.config,
        overrides=arguments.overrides,
    )
    outcome = predict(
        detector,
        arguments.input,
        arguments.output,
        least_score=arguments.score,
        ids=arguments.ids,
        forms=arguments.save_as or (),
    )
    skipped = f", {len(outcome.skipped)} unreadable skipped" if outcome.skipped else ""
    found = found_line(outcome.detections, outcome.drawn, arguments.score)
    print(f"{count(outcome.images, 'image')}, {found}{skipped}")
    print(f"pictures and predictions.json in {arguments.output}")


if __name__ == "__main__":
    run(main)

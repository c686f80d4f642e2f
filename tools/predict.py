#!/usr/bin/env python3
"""Run a trained detector on images and videos: boxes (and masks) drawn, JSON Lines, and a JSON in COCO's results form.

A run that was killed goes on when the same command is given again. detections.jsonl has a line for each image:
bbox is [x, y, width, height] in pixels of the image.
"""

from __future__ import annotations

from pathlib import Path

from backbone.common.cli import Parser, run
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
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="an image, a video, a tar shard, a folder, a quoted glob, or a list of these: a .txt, or - for stdin",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--score", type=float, default=0.5, metavar="S", help="least score drawn (default: 0.5)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video, detect on each N-th frame")
    parser.add_argument("--no-pictures", action="store_true", help="draw no pictures and no videos")
    parser.add_argument(
        "--overwrite", action="store_true", help="throw away another run that is unfinished in --output"
    )
    parser.add_argument("--engine", help="torch, onnxruntime or openvino (else what the suffix of --weights asks for)")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    parser.add_argument(
        "--num-processes", type=int, metavar="N", help="that share the images, one a GPU on GPUs; torchrun does it too"
    )
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
    from backbone.engine.processes import run as run_processes
    from detection.inference.predict_request import PredictRequest, launch_of, run_request

    options = {
        "least_score": arguments.score,
        "ids": arguments.ids,
        "forms": tuple(arguments.save_as or ()),
        "every": arguments.every,
        "pictures": not arguments.no_pictures,
        "overwrite": arguments.overwrite,
    }
    request = PredictRequest(
        weights=arguments.weights,
        device=arguments.device,
        engine=arguments.engine,
        config=arguments.config,
        overrides=tuple(arguments.overrides),
        imports=tuple(arguments.imports),
        source=arguments.input,
        output=arguments.output,
        options=options,
    )
    run_processes(run_request, launch_of(request, arguments.num_processes), (request,))


if __name__ == "__main__":
    run(main)

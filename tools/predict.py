#!/usr/bin/env python3
"""Run a trained network on images; the weights say whether it is a detector, a classifier or one for segmentation.

Of detectors: boxes (and masks) drawn, also on videos, JSON Lines, and a JSON in COCO's results form. A run that was
killed goes on when the same command is given again. detections.jsonl has a line for each image: bbox is
[x, y, width, height] in pixels of the image.

Of segmentation: label images and overlays; with --truth also figures, and an HTML page of the errors.

Of classifiers: the likeliest classes as JSON and CSV; with --grad-cam also pictures of where the network looks.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.errors import ConfigError, WeightsError
from backbone.common.text import count
from backbone.common.waiting import say_importing
from backbone.engine.arguments import add_import_argument

EXAMPLE = "tools/predict.py --weights output/quickstart/model_best.pth --input photos/ --output found/"
# As in detection.inference.predict and backbone.classification.predicting, whose libraries --help need not wait for.
SCORE, OVERLAP, TOP = 0.5, 0.2, 5
# Flags that the networks of one task alone have.
FLAGS = {
    "detection": ("score", "tile", "overlap", "every", "overwrite", "engine", "num_processes", "ids", "save_as"),
    "segmentation": ("truth",),
    "classification": ("top", "grad_cam"),
}


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint or run folder, an exported .onnx or .xml, or a network of another project",
    )
    parser.add_argument("--config", metavar="FILE", help="of weights that carry none (else the project's usual one)")
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="an image, a video, a tar shard, a folder, a quoted glob, or a list of these: a .txt, or - for stdin",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--no-pictures", action="store_true", help="draw no pictures and no videos")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    labels = parser.add_argument_group("segmentation")
    labels.add_argument("--truth", type=Path, metavar="PATH", help="label images of the same names, to compare with")
    classes = parser.add_argument_group("classifiers")
    classes.add_argument("--top", type=int, metavar="K", help=f"classes of each image (default: {TOP})")
    classes.add_argument("--grad-cam", action="store_true", help="draw where the image speaks for its likeliest class")
    add_detector_flags(parser)
    add_import_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys, such as TEST.FLIP True")
    return parser


def add_detector_flags(parser: Parser) -> None:
    """Add what detectors alone have."""
    boxes = parser.add_argument_group("detectors")
    boxes.add_argument("--score", type=float, metavar="S", help=f"least score drawn (default: {SCORE})")
    boxes.add_argument(
        "--tile", type=int, metavar="PX", help="detect on larger images in tiles of this side, and merge"
    )
    overlap = f"of a tile, with each neighbour (default: {OVERLAP})"
    boxes.add_argument("--overlap", type=float, metavar="SHARE", help=overlap)
    boxes.add_argument("--every", type=int, metavar="N", help="of a video, detect on each N-th frame")
    boxes.add_argument("--overwrite", action="store_true", help="throw away another run that is unfinished in --output")
    boxes.add_argument("--engine", help="torch, onnxruntime or openvino (else what the suffix of --weights asks for)")
    boxes.add_argument(
        "--num-processes", type=int, metavar="N", help="that share the images, one a GPU on GPUs; torchrun does it too"
    )
    boxes.add_argument(
        "--ids", type=Path, metavar="JSON", help="annotations in COCO form, whose image ids the predictions get"
    )
    boxes.add_argument(
        "--save-as",
        action="append",
        choices=("yolo", "csv", "label-studio"),
        help="write the boxes of --score or more in this form too; may be given more than once",
    )


def main() -> None:
    arguments = make_parser().parse_intermixed_args()
    # A pattern that the shell has replaced by its files.
    if more := [given for given in arguments.overrides[::2] if Path(given).is_file()]:
        raise ConfigError(
            f"--input takes one path, and {more[0]} is another one; quote the pattern, or give a list (a .txt, or -)"
        )
    if arguments.overlap is not None and arguments.tile is None:
        raise ConfigError("--overlap is a share of the tiles that --tile asks for; give that too, such as --tile 640")
    # Behind the parser: --help and a wrong flag answer at once.
    say_importing("torch")
    from backbone.engine.kinds import task_of

    task = task_of(arguments.weights)
    if task not in FLAGS:
        raise WeightsError(f"{arguments.weights}: is a network for {task}; this runs those for {', '.join(FLAGS)}")
    for owner, names in FLAGS.items():
        wrong = [name for name in names if owner != task and getattr(arguments, name) not in (None, False)]
        if wrong:
            flag = wrong[0].replace("_", "-")
            raise WeightsError(f"--{flag} is for {owner}; {arguments.weights} is a network for {task}")
    {"detection": detect, "segmentation": segment, "classification": classify}[task](arguments)


def detect(arguments: Namespace) -> None:
    """Run a detector."""
    say_importing("detectron2")
    import detection

    detection.register()
    from backbone.engine.processes import run as run_processes
    from detection.inference.predict_request import PredictRequest, launch_of, run_request

    wanted = {
        "least_score": arguments.score,
        "ids": arguments.ids,
        "tile": arguments.tile,
        "overlap": arguments.overlap,
        "every": arguments.every,
    }
    options = {name: value for name, value in wanted.items() if value is not None}
    options["forms"] = tuple(arguments.save_as or ())
    options |= {"pictures": not arguments.no_pictures, "overwrite": arguments.overwrite}
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


def segment(arguments: Namespace) -> None:
    """Run a network for segmentation."""
    from backbone.engine.extensions import import_modules
    from backbone.engine.record import start_logging
    from backbone.segmentation.predicting import predict_images
    from backbone.segmentation.segmenter import load_segmenter

    start_logging(None)
    import_modules(arguments.imports)
    segmenter = load_segmenter(arguments.weights, arguments.device, arguments.overrides, arguments.config)
    outcome = predict_images(
        segmenter, arguments.input, arguments.output, truth=arguments.truth, pictures=not arguments.no_pictures
    )
    if outcome.table:
        print(f"{outcome.table}\n")
    skipped = f", {len(outcome.skipped)} unreadable skipped" if outcome.skipped else ""
    alone = f", {outcome.without_truth} of them without truth" if outcome.without_truth else ""
    print(f"{count(outcome.images, 'image')}{alone}{skipped}")
    print(f"{outcome.written} in {arguments.output}")


def classify(arguments: Namespace) -> None:
    """Run a classifier."""
    import backbone
    from backbone.classification.predicting import predict_images
    from backbone.engine.extensions import import_modules
    from backbone.engine.record import start_logging

    if arguments.config is not None:
        raise WeightsError(f"--config {arguments.config}: a classifier needs none; KEY VALUE changes single keys")
    if arguments.grad_cam and arguments.no_pictures:
        raise WeightsError("--grad-cam asks for pictures, --no-pictures for none; give one of them")
    start_logging(None)
    import_modules(arguments.imports)
    classifier = backbone.load_classifier(arguments.weights, arguments.device, overrides=arguments.overrides)
    top = TOP if arguments.top is None else arguments.top
    outcome = predict_images(classifier, arguments.input, arguments.output, top=top, pictures=arguments.grad_cam)
    print(f"{outcome.table()}\n")
    skipped = f", {len(outcome.skipped)} unreadable skipped" if outcome.skipped else ""
    print(f"{count(len(outcome.guesses), 'image')}{skipped}")
    print(f"{outcome.written} in {arguments.output}")


if __name__ == "__main__":
    run(main)
